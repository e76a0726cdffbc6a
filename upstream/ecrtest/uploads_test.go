package ecrtest_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

const mib = 1 << 20

func patch(r *rig, location string, content []byte, headers ...string) answer {
	r.t.Helper()
	return r.do(http.MethodPatch, location, bytes.NewReader(content), headers...)
}

// Source: distribution#2927 (absolute Location, no Docker-Upload-UUID), marjamis/ecr_reverse_proxy.
func TestUploadStart(t *testing.T) {
	for _, tls := range []bool{false, true} {
		r := start(t, ecrtest.Options{SelfSigned: tls})
		r.CreateRepository("team/app")
		a := r.do(http.MethodPost, "/v2/team/app/blobs/uploads/", nil).want(t, http.StatusAccepted, "", "")
		scheme := map[bool]string{false: "http", true: "https"}[tls]
		if !regexp.MustCompile(`^` + scheme + `://` + regexp.QuoteMeta(r.RegistryHost) + `/v2/team/app/blobs/uploads/[0-9a-f-]{36}$`).MatchString(a.Header.Get("Location")) {
			t.Errorf("Location %s", a.Header.Get("Location"))
		}
		if a.Header.Get("Range") != "0-0" {
			t.Errorf("Range %q", a.Header.Get("Range"))
		}
		if v, ok := a.Header["Docker-Upload-Uuid"]; ok {
			t.Errorf("Docker-Upload-UUID %s", v)
		}
	}
}

// Docker's push (moby's client): POST, one PATCH of unknown length with the whole layer, an empty
// PUT. PATCH answers 201 (source: dotnet/sdk-container-builds#279), and its Range stays at the
// first 10 MiB (source: containers-roadmap#2831).
func TestUploadOnePatch(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	for size, reported := range map[int]string{1: "0-0", 100: "0-99", 10*mib - 1: "0-10485758", 10*mib + 1: "0-10485759", 23 * mib: "0-10485759"} {
		content := bytes.Repeat([]byte("x"), size)
		loc := r.begin("team/app")
		a := r.do(http.MethodPatch, loc, io.MultiReader(bytes.NewReader(content))).want(t, http.StatusCreated, "", "")
		if a.Header.Get("Range") != reported || a.Header.Get("Location") != loc {
			t.Errorf("%d bytes: Range %s, Location %s", size, a.Header.Get("Range"), a.Header.Get("Location"))
		}
		d := digest.FromBytes(content)
		r.do(http.MethodPut, loc+"?digest="+d.String(), nil).want(t, http.StatusCreated, "", "")
		if !r.HasBlob("team/app", d) {
			t.Errorf("%d bytes: no blob", size)
		}
	}
}

// Source: apple/containerization#790: a client that believes the stale Range, or sends out of
// order, gets this 416.
func TestUploadOutOfOrder(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	content := bytes.Repeat([]byte("y"), 11304960)
	loc := r.begin("team/app")
	patch(r, loc, content, "Content-Range", "0-11304959").want(t, http.StatusCreated, "", "")
	patch(r, loc, content[:9], "Content-Range", "0-8").want(t, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID",
		"First byte of the layer part is 0 instead of 11304960")
	patch(r, loc, content[:9], "Content-Range", "10485760-10485768").want(t, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID",
		"First byte of the layer part is 10485760 instead of 11304960")
	d := digest.FromBytes(append(content, "end"...))
	put := func(first string) answer {
		return r.do(http.MethodPut, loc+"?digest="+d.String(), strings.NewReader("end"), "Content-Range", first+"-11304962")
	}
	put("11304959").want(t, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "")
	put("11304960").want(t, http.StatusCreated, "", "")
	patch(r, loc, content[:9]).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "")
}

// Source: dotnet/sdk-container-builds#279 and the ECR quotas: 5 MiB at least for each chunk but the
// last.
func TestUploadChunkMinimum(t *testing.T) {
	big, small := bytes.Repeat([]byte("z"), 5*mib), []byte("small")
	for name, tc := range map[string]struct {
		chunks [][]byte
		last   []byte
		status int
	}{
		"all big":                 {[][]byte{big, big}, nil, http.StatusCreated},
		"small last":              {[][]byte{big, small}, nil, http.StatusCreated},
		"small last with the PUT": {[][]byte{big}, small, http.StatusCreated},
		"small only":              {[][]byte{small}, nil, http.StatusCreated},
		"small first":             {[][]byte{small, big}, nil, http.StatusBadRequest},
		"one byte short":          {[][]byte{big[1:]}, small, http.StatusBadRequest},
	} {
		r := start(t, ecrtest.Options{})
		r.CreateRepository("team/app")
		loc := r.begin("team/app")
		whole := append(bytes.Join(tc.chunks, nil), tc.last...)
		for _, c := range tc.chunks {
			patch(r, loc, c).want(t, http.StatusCreated, "", "")
		}
		a := r.do(http.MethodPut, loc+"?digest="+digest.FromBytes(whole).String(), bytes.NewReader(tc.last))
		if a.Status != tc.status || tc.status != http.StatusCreated && a.code() != "BLOB_UPLOAD_INVALID" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}

// Source: containerd's pusher, regclient, kitops: POST and one PUT with the whole body.
// Source: dotnet/sdk-container-builds#424 for the mismatch, containers-roadmap#1074 for zero bytes.
func TestUploadOnePut(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	d := r.push("team/app", []byte("content"))
	if !r.HasBlob("team/app", d) {
		t.Error("no blob")
	}
	r.do(http.MethodPut, r.begin("team/app")+"?digest="+d.String(), strings.NewReader("other")).want(t, http.StatusBadRequest, "BLOB_UPLOAD_INVALID",
		"None of the provided layer digests match the calculated layer digest")
	r.do(http.MethodPut, r.begin("team/app")+"?digest="+digest.FromString("").String(), nil).want(t, http.StatusInternalServerError, "", "")
	for _, bad := range []string{"", "?digest=", "?digest=sha256:xyz", "?digest=sha512:" + strings.Repeat("ab", 64)} {
		r.do(http.MethodPut, r.begin("team/app")+bad, strings.NewReader("content")).want(t, http.StatusBadRequest, "DIGEST_INVALID", "")
	}
	if got := r.Uploads(); got.Started != 7 || got.Finished != 1 || got.Open != 4 {
		t.Errorf("%+v", got)
	}
}

// Source: containers-roadmap#1970 and docker/build-push-action#850 (closed connection), ECR guide
// (404): both are seen.
func TestMissingRepositoryOnPush(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.do(http.MethodPost, "/v2/team/none/blobs/uploads/", nil).want(t, http.StatusNotFound, "NAME_UNKNOWN",
		"The repository with name 'team/none' does not exist in the registry with id '123456789012'")
	r = with(t, func(sw *ecrtest.Switches) { sw.MissingRepositoryHangsUp = true })
	r.do(http.MethodPost, "/v2/team/none/blobs/uploads/", nil).hungUp(t)
}

// Source: ECR guide, blob mounting (Feb 2026), containers-roadmap#2860 (the blob must be
// referenced).
func TestMount(t *testing.T) {
	for name, tc := range map[string]struct {
		off, unreferenced, denied bool
		kms                       string
		query                     string
		mounted                   bool
	}{
		"all conditions":        {mounted: true},
		"setting off":           {off: true},
		"unreferenced":          {unreferenced: true},
		"not readable":          {denied: true},
		"other encryption":      {kms: "KMS"},
		"no from (regctl)":      {query: "?mount=%s"},
		"from missing":          {query: "?mount=%s&from=team/none"},
		"same repository, back": {query: "?from=team/src&mount=%s", mounted: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, ecrtest.Options{BlobMounting: !tc.off})
			d := digest.FromString("layer")
			r.CreateRepository("team/src")
			if tc.unreferenced {
				r.push("team/src", []byte("layer"))
			} else {
				r.image("team/src", "v1", "layer")
			}
			create := map[string]any{"repositoryName": "team/dst"}
			if tc.kms != "" {
				create["encryptionConfiguration"] = map[string]string{"encryptionType": tc.kms}
			}
			r.api("CreateRepository", create).want(t, http.StatusOK, "", "")
			r.Advance(time.Second) // until the repository is there
			if tc.denied {
				r.SetDenials(ecrtest.Denial{Action: "ecr:GetDownloadUrlForLayer", Resource: "*/src"})
			}
			q := strings.ReplaceAll(tc.query, "%s", d.String())
			if q == "" {
				q = "?mount=" + d.String() + "&from=team/src"
			}
			a := r.do(http.MethodPost, "/v2/team/dst/blobs/uploads/"+q, nil)
			want := map[bool]int{true: http.StatusCreated, false: http.StatusAccepted}[tc.mounted]
			a.want(t, want, "", "")
			if r.HasBlob("team/dst", d) != tc.mounted {
				t.Errorf("blob in the repository: %v", !tc.mounted)
			}
			if !tc.mounted && !strings.Contains(a.Header.Get("Location"), "/blobs/uploads/") {
				t.Errorf("Location %s", a.Header.Get("Location"))
			}
			if r.Count(ecrtest.KindMount) != 1 {
				t.Errorf("%v", r.Counters())
			}
		})
	}
}

// Source: ECR guide, create on push (Dec 2025): a template for the prefix or ROOT, and
// ecr:CreateRepository.
func TestCreateOnPush(t *testing.T) {
	r := start(t, ecrtest.Options{CreateOnPush: []ecrtest.CreationTemplate{{Prefix: "team", TagMutability: "IMMUTABLE"}}})
	r.do(http.MethodPost, "/v2/other/app/blobs/uploads/", nil).want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
	r.SetDenials(ecrtest.Denial{Action: "ecr:CreateRepository"})
	r.do(http.MethodPost, "/v2/team/app/blobs/uploads/", nil).want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
	r.SetDenials()
	raw := r.manifest("team/app", "layer")
	r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusBadRequest, "TAG_INVALID", "")
	root := start(t, ecrtest.Options{CreateOnPush: []ecrtest.CreationTemplate{{Prefix: "ROOT"}, {Prefix: "team", TagMutability: "IMMUTABLE"}}})
	root.begin("any/thing")
	// Reading never creates.
	root.get("/v2/any/other/manifests/v1").want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
}

// Source: roadmap#2837 and the pull-through pages of the ECR guide: the upstream is looked at once
// in 24 hours.
func TestPullThrough(t *testing.T) {
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	first, err := hub.Seed(ecrtest.SeedImage{Repository: "library/app", Tag: "v1", Layers: 2, LayerBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, ecrtest.Options{BlobMounting: true, PullThrough: []ecrtest.PullThroughRule{{Prefix: "hub", Upstream: hub.RegistryURL}}})
	r.get("/v2/library/app/manifests/v1").want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
	got := r.get("/v2/hub/library/app/manifests/v1").want(t, http.StatusOK, "", "")
	if digest.FromBytes(got.Body) != first {
		t.Errorf("imported %s", got.Body)
	}
	var m v1.Manifest
	unmarshal(t, got.Body, &m)
	r.get(r.follow("hub/library/app", m.Layers[1].Digest)).want(t, http.StatusOK, "", "")

	asked := hub.Count(ecrtest.KindManifestGet)
	second, err := hub.Seed(ecrtest.SeedImage{Repository: "library/app", Tag: "v1", Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.Advance(23 * time.Hour)
	r.basic = r.Token("")
	r.get("/v2/hub/library/app/manifests/v1").want(t, http.StatusOK, "", string(got.Body))
	if n := hub.Count(ecrtest.KindManifestGet); n != asked {
		t.Errorf("upstream asked %d times more within 24 h", n-asked)
	}
	r.Advance(2 * time.Hour)
	if fresh := r.get("/v2/hub/library/app/manifests/v1"); digest.FromBytes(fresh.Body) != second {
		t.Errorf("after 24 h: %d %s", fresh.Status, fresh.Body)
	}
	hub.AddFault(ecrtest.Fault{Status: http.StatusServiceUnavailable, Count: -1})
	r.Advance(25 * time.Hour)
	r.basic = r.Token("")
	if stale := r.get("/v2/hub/library/app/manifests/v1"); digest.FromBytes(stale.Body) != second {
		t.Errorf("with the upstream down: %d %s", stale.Status, stale.Body)
	}
	r.get("/v2/hub/library/none/manifests/v1").want(t, http.StatusNotFound, "", "")
	// Source: ECR guide, blob mounting: not for pull-through repositories.
	r.CreateRepository("team/dst")
	r.do(http.MethodPost, "/v2/team/dst/blobs/uploads/?from=hub/library/app&mount="+m.Config.Digest.String(), nil).want(t, http.StatusAccepted, "", "")
}
