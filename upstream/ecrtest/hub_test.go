package ecrtest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// bearer gets a token for the challenge of an answer.
func (r *rig) bearer(a answer, user, password string) answer {
	r.t.Helper()
	challenge, ok := strings.CutPrefix(a.Header.Get("Www-Authenticate"), "Bearer ")
	if !ok {
		r.t.Fatalf("challenge %q", a.Header.Get("Www-Authenticate"))
	}
	q := url.Values{}
	realm := ""
	for part := range strings.SplitSeq(challenge, `",`) {
		k, v, _ := strings.Cut(strings.TrimSuffix(part, `"`), `="`)
		if k == "realm" {
			realm = v
			continue
		}
		q.Set(k, v)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, strings.Replace(realm, r.RegistryHost, r.RegistryAddr, 1)+"?"+q.Encode(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	text := readAll(r.t, resp.Body)
	if resp.StatusCode == http.StatusOK {
		unmarshal(r.t, text, &out)
		if out.Token == "" || out.Token != out.AccessToken || out.ExpiresIn != 300 {
			r.t.Errorf("%s", text)
		}
	}
	return answer{Status: resp.StatusCode, Body: []byte(out.Token)}
}

// hub starts a Hub with one image.
func hub(t *testing.T, opts ecrtest.HubOptions) (*rig, digest.Digest) {
	t.Helper()
	r := start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Hub: opts})
	d, err := r.Seed(ecrtest.SeedImage{Repository: "library/app", Tag: "v1", LayerBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	r.basic, r.host = "", r.RegistryAddr
	return r, d
}

// Source: docker's token authentication specification; docker 29 wants access_token where docker 20
// reads token (measured).
func TestHubPull(t *testing.T) {
	r, d := hub(t, ecrtest.HubOptions{PushNeedsUser: true})
	a := r.get("/v2/library/app/manifests/v1").want(t, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	want := `Bearer realm="http://` + r.RegistryAddr + `/token",service="registry.docker.io",scope="repository:library/app:pull"`
	if got := a.Header.Get("Www-Authenticate"); got != want {
		t.Errorf("challenge %s", got)
	}
	auth := "Bearer " + string(r.bearer(a, "", "").Body)
	m := r.get("/v2/library/app/manifests/v1", "Authorization", auth).want(t, http.StatusOK, "", "")
	if h := m.Header; h.Get("Docker-Content-Digest") != d.String() || h.Get("Ratelimit-Limit") != "100;w=21600" || h.Get("Docker-Ratelimit-Source") == "" || h.Get("Ratelimit-Remaining") != "100;w=21600" {
		t.Errorf("%v", h)
	}
	if _, ok := m.Header["Sizes"]; ok {
		t.Error("Sizes at a hub")
	}
	var doc v1.Manifest
	unmarshal(t, m.Body, &doc)
	blob := r.get("/v2/library/app/blobs/"+doc.Layers[0].Digest.String(), "Authorization", auth).want(t, http.StatusTemporaryRedirect, "", "")
	if got := r.head("/v2/library/app/blobs/"+doc.Layers[0].Digest.String(), "Authorization", auth).Header.Get("Content-Type"); got != "application/octet-stream" {
		t.Errorf("HEAD blob: %s", got)
	}
	r.get(blob.Header.Get("Location"), "Authorization", auth).want(t, http.StatusOK, "", "") // unlike S3 behind ECR
	r.Advance(6 * time.Minute)
	late := r.get("/v2/library/app/manifests/v1", "Authorization", auth).want(t, http.StatusUnauthorized, "UNAUTHORIZED", "")
	if !strings.Contains(late.Header.Get("Www-Authenticate"), `error="invalid_token"`) {
		t.Errorf("%v", late.Header)
	}
}

// Source: distribution's answers: 202 on PATCH with an exact Range, Docker-Upload-UUID, relative
// Location, empty blobs, repositories that come into being, Location and digest with the manifest,
// any chunk size.
func TestHubPush(t *testing.T) {
	for _, needsUser := range []bool{false, true} {
		r, _ := hub(t, ecrtest.HubOptions{PushNeedsUser: needsUser, Users: map[string]string{"me": "secret"}})
		a := r.do(http.MethodPost, "/v2/new/app/blobs/uploads/", nil).want(t, http.StatusUnauthorized, "", "")
		if !strings.Contains(a.Header.Get("Www-Authenticate"), `scope="repository:new/app:pull,push"`) {
			t.Errorf("%v", a.Header)
		}
		auth := "Bearer " + string(r.bearer(a, "", "").Body)
		status := map[bool]int{true: http.StatusUnauthorized, false: http.StatusAccepted}[needsUser]
		r.do(http.MethodPost, "/v2/new/app/blobs/uploads/", nil, "Authorization", auth).want(t, status, "", "")
		if needsUser {
			for user, password := range map[string]string{"me": "wrong", "nobody": ""} {
				if got := r.bearer(a, user, password).Status; got != http.StatusUnauthorized {
					t.Errorf("%s:%s: %d", user, password, got)
				}
			}
			auth = "Bearer " + string(r.bearer(a, "me", "secret").Body)
		}
		begun := r.do(http.MethodPost, "/v2/new/app/blobs/uploads/", nil, "Authorization", auth).want(t, http.StatusAccepted, "", "")
		loc := begun.Header.Get("Location")
		if id := begun.Header.Get("Docker-Upload-Uuid"); len(id) != 36 || loc != "/v2/new/app/blobs/uploads/"+id {
			t.Errorf("%v", begun.Header)
		}
		for i, c := range []string{"a", "b"} {
			p := patch(r, loc, []byte(c), "Authorization", auth).want(t, http.StatusAccepted, "", "")
			if got := p.Header.Get("Range"); got != fmt.Sprintf("0-%d", i) {
				t.Errorf("Range %s", got)
			}
		}
		d := digest.FromString("ab")
		r.do(http.MethodPut, loc+"?digest="+d.String(), nil, "Authorization", auth).want(t, http.StatusCreated, "", "")
		empty := r.do(http.MethodPost, "/v2/new/app/blobs/uploads/", nil, "Authorization", auth).Header.Get("Location")
		r.do(http.MethodPut, empty+"?digest="+digest.FromString("").String(), nil, "Authorization", auth).want(t, http.StatusCreated, "", "")
		r.do(http.MethodPost, "/v2/other/app/blobs/uploads/?from=new/app&mount="+d.String(), nil, "Authorization", auth).want(t, http.StatusCreated, "", "")
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"%s","size":2},"layers":[]}`, d)
		put := r.do(http.MethodPut, "/v2/new/app/manifests/v1", strings.NewReader(string(raw)), "Authorization", auth, "Content-Type", v1.MediaTypeImageManifest+"; x=y").want(t, http.StatusCreated, "", "")
		if h := put.Header; h.Get("Docker-Content-Digest") != digest.FromBytes(raw).String() || h.Get("Location") != "/v2/new/app/manifests/"+digest.FromBytes(raw).String() {
			t.Errorf("%v", h)
		}
	}
}

// Source: Docker Hub's documentation of pull limits: GET of manifests counts, HEAD does not.
func TestHubPullLimit(t *testing.T) {
	r, _ := hub(t, ecrtest.HubOptions{PullLimit: 2})
	auth := "Bearer " + r.Token("")
	for _, left := range []string{"1", "0"} {
		r.head("/v2/library/app/manifests/v1", "Authorization", auth).want(t, http.StatusOK, "", "")
		a := r.get("/v2/library/app/manifests/v1", "Authorization", auth).want(t, http.StatusOK, "", "")
		if a.Header.Get("Ratelimit-Remaining") != left+";w=21600" {
			t.Errorf("%v", a.Header)
		}
	}
	r.get("/v2/library/app/manifests/v1", "Authorization", auth).want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS", "")
	r.Advance(6 * time.Hour)
	r.get("/v2/library/app/manifests/v1", "Authorization", "Bearer "+r.Token("")).want(t, http.StatusOK, "", "")
}

// Source: OCI distribution specification: sorted pages that continue from a tag.
func TestHubTags(t *testing.T) {
	r, _ := hub(t, ecrtest.HubOptions{})
	for _, tag := range []string{"c", "a", "b"} {
		if _, err := r.Seed(ecrtest.SeedImage{Repository: "library/tags", Tag: tag}); err != nil {
			t.Fatal(err)
		}
	}
	auth := "Bearer " + r.Token("")
	a := r.get("/v2/library/tags/tags/list?n=2", "Authorization", auth).want(t, http.StatusOK, "", `{"name":"library/tags","tags":["a","b"]}`)
	if a.next() != "/v2/library/tags/tags/list?last=b&n=2" || a.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%v", a.Header)
	}
	r.get(a.next(), "Authorization", auth).want(t, http.StatusOK, "", `{"name":"library/tags","tags":["c"]}`)
	r.get("/v2/library/tags/tags/list", "Authorization", auth).want(t, http.StatusOK, "", `{"name":"library/tags","tags":["a","b","c"]}`)
	r.get("/v2/library/tags/tags/list?n=5000", "Authorization", auth).want(t, http.StatusOK, "", "")
}

// Equal descriptions seed equal images, of either family.
func TestSeed(t *testing.T) {
	a, b := start(t, ecrtest.Options{}), start(t, ecrtest.Options{})
	img := ecrtest.SeedImage{Repository: "team/app", Tag: "v1", Layers: 2, LayerBytes: 5000}
	first, err := a.Seed(img)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := b.Seed(img); err != nil || second != first {
		t.Errorf("%s, %s, %v", first, second, err)
	}
	img.Tag, img.Docker = "docker", true
	if _, err := a.Seed(img); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.Image("team/app", "docker"); got.MediaType != dockerManifest {
		t.Errorf("%+v", got)
	}
	if _, err := a.Seed(ecrtest.SeedImage{Repository: "BAD", Tag: "x"}); err == nil {
		t.Error("seeded BAD")
	}
}
