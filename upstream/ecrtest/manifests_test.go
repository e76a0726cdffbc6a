package ecrtest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// Source: oras-go#237, containers-roadmap#1931: HEAD has Docker-Content-Digest, GET has not.
func TestManifestDigestHeader(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	d := digest.FromBytes(raw)
	for _, ref := range []string{"v1", d.String()} {
		get := r.get("/v2/team/app/manifests/"+ref).want(t, http.StatusOK, "", string(raw))
		head := r.head("/v2/team/app/manifests/"+ref).want(t, http.StatusOK, "", "")
		if v, ok := get.Header["Docker-Content-Digest"]; ok {
			t.Errorf("GET %s has Docker-Content-Digest %s", ref, v)
		}
		if got := head.Header.Get("Docker-Content-Digest"); got != d.String() {
			t.Errorf("HEAD %s: digest %q", ref, got)
		}
		for _, a := range []answer{get, head} {
			if v, ok := a.Header["Sizes"]; !ok || v[0] != "" {
				t.Errorf("Sizes %q %v", v, ok)
			}
			if a.Header.Get("Content-Type") != v1.MediaTypeImageManifest || a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Errorf("%v", a.Header)
			}
		}
	}
}

// Source: ECR guide, errors and common-errors-docker.
func TestManifestMissing(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.image("team/app", "v1", "layer")
	r.get("/v2/team/app/manifests/v2").want(t, http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found")
	r.get("/v2/team/app/manifests/"+digest.FromString("x").String()).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found")
	r.get("/v2/team/none/manifests/v1").want(t, http.StatusNotFound, "NAME_UNKNOWN",
		"The repository with name 'team/none' does not exist in the registry with id '123456789012'")
	if a := r.head("/v2/team/none/manifests/v1"); a.Status != http.StatusNotFound {
		t.Errorf("HEAD: %d", a.Status)
	}
}

// Source: bazel-contrib/rules_oci#720: 400 to HEAD of a manifest by an invalid tag.
func TestInvalidTag(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.image("team/app", "v1", "layer")
	for _, ref := range []string{"-bad", strings.Repeat("a", 129), "sha256:x"} {
		if a := r.head("/v2/team/app/manifests/" + ref); a.Status != http.StatusBadRequest {
			t.Errorf("HEAD of %s: %d", ref, a.Status)
		}
		r.get("/v2/team/app/manifests/"+ref).want(t, http.StatusBadRequest, "TAG_INVALID", "")
	}
}

// Source: ECR guide, archive-image (a push restores) and ECR model (LayerAvailability ARCHIVED,
// ListImageReferrers of active images).
func TestArchivedLayers(t *testing.T) {
	r := start(t, ecrtest.Options{})
	layer, raw := r.image("team/app", "v1", "layer")
	signature := r.refer("team/app", raw, "application/vnd.example")
	available := func(want string) {
		t.Helper()
		var out struct {
			Layers []struct{ LayerAvailability string }
		}
		unmarshal(t, r.api("BatchCheckLayerAvailability", map[string]any{"repositoryName": "team/app", "layerDigests": []digest.Digest{layer}}).Body, &out)
		if len(out.Layers) != 1 || out.Layers[0].LayerAvailability != want {
			t.Errorf("%+v, want %s", out, want)
		}
	}
	referrers := func(want int) {
		t.Helper()
		var list v1.Index
		unmarshal(t, r.get("/v2/team/app/referrers/"+digest.FromBytes(raw).String()).Body, &list)
		if len(list.Manifests) != want {
			t.Errorf("%d referrers, want %d", len(list.Manifests), want)
		}
	}
	available("AVAILABLE")
	referrers(1)
	r.Archive("team/app", signature.String(), true)
	referrers(0)
	r.Archive("team/app", "v1", true)
	available("ARCHIVED")
	r.get("/v2/team/app/blobs/"+layer.String()).want(t, http.StatusNotFound, "BLOB_UNKNOWN", "")
	r.api("GetDownloadUrlForLayer", map[string]any{"repositoryName": "team/app", "layerDigest": layer}).want(t, http.StatusBadRequest, "", "")

	r.putManifest("team/app", digest.FromBytes(raw).String(), raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	if img, _ := r.Image("team/app", "v1"); img.Archived {
		t.Error("a push has not restored the image")
	}
	available("AVAILABLE")
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")
	r.get("/v2/team/app/blobs/"+layer.String()).want(t, http.StatusTemporaryRedirect, "", "")
}

// Source: ECR guide, archive page: an archived image is not found until it is restored.
func TestArchived(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	if !r.Archive("team/app", "v1", true) {
		t.Fatal("no image")
	}
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusNotFound, "MANIFEST_UNKNOWN", "")
	r.get("/v2/team/app/manifests/"+digest.FromBytes(raw).String()).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN", "")
	r.Archive("team/app", digest.FromBytes(raw).String(), false)
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")
	if r.Archive("team/app", "v2", true) || r.Archive("none", "v1", true) {
		t.Error("archived what is not there")
	}
}

// Source: ECR guide, image-manifest-formats: conversion by tag to fit Accept, none by digest.
func TestConversion(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	d := digest.FromBytes(raw)
	a := r.get("/v2/team/app/manifests/v1", "Accept", dockerManifest).want(t, http.StatusOK, "", "")
	if a.Header.Get("Content-Type") != dockerManifest || digest.FromBytes(a.Body) == d {
		t.Errorf("not converted: %s", a.Body)
	}
	var m, stored v1.Manifest
	if err := json.Unmarshal(a.Body, &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	if m.MediaType != dockerManifest || m.Config.MediaType != dockerConfig || m.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar.gzip" ||
		m.Layers[0].Digest != stored.Layers[0].Digest || m.Config.Digest != stored.Config.Digest || m.Layers[0].Size != 5 {
		t.Errorf("converted to %s", a.Body)
	}
	head := r.head("/v2/team/app/manifests/v1", "Accept", dockerManifest)
	if got, want := head.Header.Get("Docker-Content-Digest"), digest.FromBytes(a.Body).String(); got != want {
		t.Errorf("HEAD says %s, GET gives %s", got, want)
	}
	for _, accept := range []string{v1.MediaTypeImageManifest, dockerManifest + ", " + v1.MediaTypeImageManifest, "*/*", dockerManifest + ",application/*;q=0.5"} {
		r.get("/v2/team/app/manifests/v1", "Accept", accept).want(t, http.StatusOK, "", string(raw))
	}
	r.get("/v2/team/app/manifests/v1", "Accept", dockerManifest, "Accept", v1.MediaTypeImageManifest).want(t, http.StatusOK, "", string(raw))
	r.get("/v2/team/app/manifests/"+d.String(), "Accept", dockerManifest).want(t, http.StatusOK, "", string(raw))

	// The other way round: what comes back has OCI's types throughout.
	r.putManifest("team/app", "docker", a.Body, dockerManifest).want(t, http.StatusCreated, "", "")
	back := r.get("/v2/team/app/manifests/docker", "Accept", v1.MediaTypeImageManifest).want(t, http.StatusOK, "", "")
	if back.Header.Get("Content-Type") != v1.MediaTypeImageManifest || bytes.Contains(back.Body, []byte("docker")) {
		t.Errorf("converted to %s", back.Body)
	}
}

// Artifacts have no counterpart among Docker's types and come as they are.
func TestConversionOfArtifact(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	raw := bytes.Replace(r.manifest("team/app", "layer"), []byte(v1.MediaTypeImageConfig), []byte("application/vnd.cncf.helm.config.v1+json"), 1)
	r.putManifest("team/app", "chart", raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	r.get("/v2/team/app/manifests/chart", "Accept", dockerManifest).want(t, http.StatusOK, "", string(raw))
}

// Source: apple/swift-container-plugin#27: 201 without Location.
func TestManifestPut(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	raw := r.manifest("team/app", "layer")
	a := r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	if v, ok := a.Header["Location"]; ok {
		t.Errorf("Location %s", v)
	}
	// The same bytes on a mutable tag, and by digest, are no error.
	r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	r.putManifest("team/app", digest.FromBytes(raw).String(), raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	// Source: GGCR#1568.
	other := digest.FromString("other").String()
	r.putManifest("team/app", other, raw, v1.MediaTypeImageManifest).want(t, http.StatusBadRequest, "MANIFEST_INVALID",
		"The image with digest '"+other+"' in repository 'team/app' and registry ID '123456789012' does not match the image digest that Amazon ECR has calculated.")
	r.putManifest("team/none", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusNotFound, "NAME_UNKNOWN", "")
	r.putManifest("team/app", "-bad", raw, v1.MediaTypeImageManifest).want(t, http.StatusBadRequest, "TAG_INVALID", "")
}

// Source: triggerdotdev/trigger.dev#2473 for the text; aws/aws-sdk#750: equal bytes are refused,
// too. Source: service/ecr CHANGELOG of 2025-07-22 for exclusions.
func TestImmutableTags(t *testing.T) {
	for _, tc := range []struct {
		mutability, filter, tag string
		refused                 bool
	}{
		{"MUTABLE", "", "v1", false},
		{"IMMUTABLE", "", "v1", true},
		{"IMMUTABLE_WITH_EXCLUSION", "dev*", "v1", true},
		{"IMMUTABLE_WITH_EXCLUSION", "dev*", "dev-1", false},
		{"MUTABLE_WITH_EXCLUSION", "v*", "v1", true},
		{"MUTABLE_WITH_EXCLUSION", "v*", "dev-1", false},
	} {
		r := start(t, ecrtest.Options{})
		create := map[string]any{"repositoryName": "team/app", "imageTagMutability": tc.mutability}
		if tc.filter != "" {
			create["imageTagMutabilityExclusionFilters"] = []map[string]string{{"filterType": "WILDCARD", "filter": tc.filter}}
		}
		r.api("CreateRepository", create).want(t, http.StatusOK, "", "")
		r.Advance(time.Second) // until the repository is there
		first, second := r.manifest("team/app", "one"), r.manifest("team/app", "two")
		r.putManifest("team/app", tc.tag, first, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
		for _, raw := range [][]byte{first, second} {
			a := r.putManifest("team/app", tc.tag, raw, v1.MediaTypeImageManifest)
			if tc.refused {
				a.want(t, http.StatusBadRequest, "TAG_INVALID", "The image tag '"+tc.tag+"' already exists in the 'team/app' repository and cannot be overwritten because the tag is immutable.")
			} else {
				a.want(t, http.StatusCreated, "", "")
			}
		}
		r.putManifest("team/app", digest.FromBytes(second).String(), second, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	}
}

// Source: int128/docker-manifest-create-action#63 (index), oras-project/oras-py#54 (layers).
func TestMissingParts(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.image("team/app", "v1", "layer")
	child := digest.FromString("absent")
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: child, Size: 6}}}
	index.SchemaVersion = 2
	r.putManifest("team/app", "multi", marshal(t, index), v1.MediaTypeImageIndex).want(t, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN",
		"Images with digests '["+child.String()+"]' required for pushing image into repository with name 'team/app' in the registry with id '123456789012' do not exist")
	img, _ := r.Image("team/app", "v1")
	index.Manifests[0].Digest, index.Manifests[0].Size = img.Digest, int64(len(img.Raw))
	r.putManifest("team/app", "multi", marshal(t, index), v1.MediaTypeImageIndex).want(t, http.StatusCreated, "", "")

	lost := bytes.ReplaceAll(img.Raw, []byte(digest.FromString("layer")), []byte(child))
	a := r.putManifest("team/app", "v2", lost, v1.MediaTypeImageManifest).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "")
	if !strings.Contains(a.message(), child.String()) {
		t.Error(a.message())
	}
	// Layers that registries need not hold are not missed.
	foreign := bytes.ReplaceAll(lost, []byte(v1.MediaTypeImageLayerGzip), []byte("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"))
	r.putManifest("team/app", "v2", foreign, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
}

// Every manifest that ECR was seen to refuse is refused in its words, and has a source and a date.
func TestRefusedManifests(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	refused, blobs := ecrtest.RefusedManifests()
	for _, b := range blobs {
		r.push("team/app", b)
	}
	for _, m := range refused {
		if m.Source == "" || len(m.Seen) < len("2026-01") {
			t.Errorf("%s: source %q of %q", m.Name, m.Source, m.Seen)
		}
		a := r.putManifest("team/app", "t", m.Manifest, m.ContentType)
		if a.Status != http.StatusMethodNotAllowed || a.code() != "UNSUPPORTED" || a.message() != "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'" {
			t.Errorf("%s: %d %s", m.Name, a.Status, a.Body)
		}
	}
}

// Manifests that resemble the refused ones are taken: the refusals have no other reason than
// theirs.
func TestDislikedManifests(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	d := digest.FromBytes(raw)
	silent := bytes.Replace(raw, []byte(`"mediaType":"`+v1.MediaTypeImageManifest+`",`), nil, 1)
	index := func(media, platform string) []byte {
		return []byte(`{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[{"mediaType":"` + media + `","digest":"` + d.String() +
			`","size":` + "9" + `,"platform":{"architecture":"amd64","os":"linux"` + platform + `}}]}`)
	}
	const oci, idx = v1.MediaTypeImageManifest, v1.MediaTypeImageIndex
	for name, tc := range map[string]struct {
		raw    []byte
		media  string
		status int
	}{
		"no JSON":                              {[]byte("{"), oci, 405},
		"silent, known Content-Type":           {silent, oci, 201},
		"silent, no Content-Type":              {silent, "", 405},
		"silent, odd Content-Type":             {silent, "application/json", 405},
		"parameter in Content-Type":            {raw, oci + "; charset=utf-8", 405},
		"parameter in mediaType":               {bytes.Replace(raw, []byte(oci), []byte(oci+";v=1"), 1), oci, 405},
		"parameter in a layer's mediaType":     {bytes.Replace(raw, []byte("tar+gzip"), []byte("tar+gzip;x=y"), 1), oci, 405},
		"declared, odd Content-Type":           {raw, "application/json", 201},
		"declared, contradicting Content-Type": {raw, dockerManifest, 405},
		"empty index":                          {[]byte(`{"schemaVersion":2,"mediaType":"` + idx + `","manifests":[]}`), idx, 405},
		"annotations of a layer":               {bytes.Replace(raw, []byte(`"size":5`), []byte(`"size":5,"annotations":{"a":"b"}`), 1), oci, 201},
		"index":                                {index(oci, ""), idx, 201},
		"index with os.version":                {index(oci, `,"os.version":"10"`), idx, 201},
		"index with platform.features":         {index(oci, `,"features":["sse4"]`), idx, 405},
		"index that lists layers":              {index(v1.MediaTypeImageLayerGzip, ""), idx, 405},
		"zstd layer (containerd-resolver#35)":  {bytes.Replace(raw, []byte("tar+gzip"), []byte("tar+zstd"), 1), oci, 201},
		"artifact (ECR guide)":                 {bytes.Replace(raw, []byte(v1.MediaTypeImageConfig), []byte("application/vnd.example+json"), 1), oci, 201},
	} {
		a := r.putManifest("team/app", "t", tc.raw, tc.media)
		if a.Status != tc.status {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, tc.status)
		}
		if tc.status == 405 && (a.code() != "UNSUPPORTED" || a.message() != "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'") {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
}

// Source: ECR model, PutImage: 4,194,304 bytes at most.
func TestManifestSize(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	pad := func(n int) []byte { return append(bytes.Repeat([]byte(" "), n-len(raw)), raw...) }
	r.putManifest("team/app", "v2", pad(4194304), v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	r.putManifest("team/app", "v2", pad(4194305), v1.MediaTypeImageManifest).want(t, http.StatusMethodNotAllowed, "UNSUPPORTED", "")
}

// Source: ECR model, ImageDetail.lastRecordedPullTime, and RegisterPullTimeUpdateExclusion.
func TestPullTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	scanner := "arn:aws:iam::123456789012:role/scanner"
	r := start(t, ecrtest.Options{Clock: func() time.Time { return now }, PullTimeExclusions: []string{scanner}})
	r.image("team/app", "v1", "layer")
	pulls := func(want int, at time.Time) {
		t.Helper()
		img, _ := r.Image("team/app", "v1")
		if img.Pulls != want || !img.LastPull.Equal(at) {
			t.Errorf("%d pulls, last %v; want %d, %v", img.Pulls, img.LastPull, want, at)
		}
	}
	pulls(0, time.Time{})
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")
	pulls(1, now)
	r.Advance(time.Hour)
	user := r.basic
	r.basic = r.Token(scanner)
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")
	pulls(1, now)
	r.basic = user
	r.get("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")
	pulls(2, now.Add(time.Hour))
}
