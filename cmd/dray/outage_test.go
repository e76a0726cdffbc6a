package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// A fetch that breaks off goes on from there, with a new signed URL, and no client sees it.
func TestOutageResumed(t *testing.T) {
	for name, faults := range map[string][]ecrtest.Fault{
		"cut once":            {{CutAt: ecrtest.At(1 << 20)}},
		"cut twice":           {{CutAt: ecrtest.At(1 << 20), Count: 2}},
		"refused, then cut":   {{Status: 403, Code: "AccessDenied"}, {CutAt: ecrtest.At(2 << 20), Skip: 1}},
		"cut, then expired":   {{CutAt: ecrtest.At(1 << 20)}, {Skip: 1, Status: 403, Code: "AccessDenied", Message: "Request has expired"}},
		"cut, signer expired": {{CutAt: ecrtest.At(1 << 20)}, {Skip: 1, Status: 400, Code: "ExpiredToken"}},
		"cut, then closed":    {{CutAt: ecrtest.At(1 << 20)}, {Skip: 1, Close: true}},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			s := startStack(t, t.TempDir())
			img := seed(t, s.ecr, "team/app", "v1", 4<<20)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.ecr.ResetCounters()
			for _, f := range faults {
				f.Kinds = []ecrtest.Kind{ecrtest.KindObjectGet}
				s.ecr.AddFault(f)
			}
			if r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
				t.Error("other bytes")
			}
			ranges, redirects := 0, s.ecr.Count(ecrtest.KindBlobGet)
			for _, e := range s.ecr.Log() {
				if e.Kind == ecrtest.KindObjectGet && strings.HasPrefix(e.Request["Range"], "bytes=") {
					ranges++
				}
			}
			if ranges == 0 || redirects < 2 || redirects != s.ecr.Count(ecrtest.KindObjectGet) {
				t.Errorf("%d requests with a range, %d redirects, %d requests to the storage", ranges, redirects, s.ecr.Count(ecrtest.KindObjectGet))
			}
		})
	}
}

// Clients wait 30 s for a header: it goes out as soon as the origin has answered, before there are
// bytes to follow it.
func TestOutageHeaderBeforeBytes(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 1<<20)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	stalled := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, StallAt: ecrtest.At(0)})
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/team/app/blobs/"+img.layer.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{ResponseHeaderTimeout: 10 * time.Second, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.ecr.RemoveFault(stalled)
	body, err := io.ReadAll(resp.Body)
	if err != nil || digest.FromBytes(body) != img.layer {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// A URL that was signed for a fetch under way expires with its signer's session: the rest comes by
// a new one.
func TestOutageSignerExpiresMidway(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 4<<20)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	id := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, StallAt: ecrtest.At(1 << 20), CutAt: ecrtest.At(2 << 20)})
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/team/app/blobs/"+img.layer.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 500<<10)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	s.ecr.ExpireURLs()
	s.ecr.ExpireSigner()
	s.ecr.RemoveFault(id)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || digest.FromBytes(append(first, rest...)) != img.layer {
		t.Errorf("%d bytes, %v", len(first)+len(rest), err)
	}
}

// Content that does not exist is a 404. While dray cannot know, the answer is 503 and never 404.
func TestOutageIsNotNotFound(t *testing.T) {
	s := startStack(t, t.TempDir(), "not_found: 1h", "not_found: 0s")
	img := seed(t, s.ecr, "team/app", "v1", 1<<10)
	absent := digest.FromString("absent").String()
	paths := map[string]string{
		"/v2/team/app/manifests/v9": "MANIFEST_UNKNOWN", "/v2/team/app/manifests/" + absent: "MANIFEST_UNKNOWN", "/v2/team/app/blobs/" + absent: "BLOB_UNKNOWN",
		"/v2/team/none/manifests/v1": "NAME_UNKNOWN", "/v2/team/none/tags/list": "NAME_UNKNOWN",
	}
	for path, code := range paths {
		s.refused(404, code, "GET", path, nil)
		if !strings.HasSuffix(path, "/list") {
			s.refused(404, "", "HEAD", path, nil)
		}
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBase, ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindTags, ecrtest.KindReferrers}, Count: -1, Close: true})
	paths["/v2/team/app/manifests/v1"], paths["/v2/team/app/blobs/"+img.layer.String()], paths["/v2/team/app/tags/list"] = "", "", ""
	paths["/v2/team/app/referrers/"+absent] = ""
	for path := range paths {
		s.refused(503, "UNAVAILABLE", "GET", path, nil)
		s.refused(503, "", "HEAD", path, nil)
	}
	s.want(200, "GET", "/v2/", nil)
}

// rogue is a registry that answers what it is told to.
type rogue struct {
	mu      sync.Mutex
	answers map[string]func(http.ResponseWriter, *http.Request)
}

func (g *rogue) set(path string, answer func(http.ResponseWriter, *http.Request)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers[path] = answer
}

func (g *rogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	answer := g.answers[r.URL.Path]
	g.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

// startRogue is a stack with one upstream more, which is a rogue with the prefix rogue.
func startRogue(t *testing.T) (*stack, *rogue) {
	t.Helper()
	g := &rogue{answers: map[string]func(http.ResponseWriter, *http.Request){}}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return startStack(t, t.TempDir(), "upstreams:\n", "upstreams:\n- {name: rogue, url: '"+server.URL+"', prefixes: [rogue], tags: {fresh: 0s, not_found: 0s}}\n", "[ecr, hub]", "[ecr, hub, rogue]"), g
}

// bytesOf answers with a body and headers.
func bytesOf(body []byte, headers ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = w.Write(body)
	}
}

// A registry that sends something else than was asked for is at fault, and not believed.
func TestOutageWrongAnswers(t *testing.T) {
	s, g := startRogue(t)
	right := imageOf(t, layerOf(1, 100))
	wrong := imageOf(t, layerOf(2, 100))
	ct := []string{"Content-Type", right.MediaType}
	g.set("/v2/app/manifests/"+right.Digest.String(), bytesOf(wrong.Raw, ct...))
	g.set("/v2/app/manifests/html", bytesOf([]byte("<html>"), "Content-Type", "text/html"))
	g.set("/v2/app/manifests/lies", bytesOf(right.Raw, "Content-Type", right.MediaType, "Docker-Content-Digest", wrong.Digest.String()))
	for _, ref := range []string{right.Digest.String(), "html", "lies"} {
		for range 2 { // nothing of it is kept
			if r := s.do("GET", "/v2/rogue/app/manifests/"+ref, nil); r.StatusCode != 502 {
				t.Errorf("%.20s: %s %s", ref, r.Status, r.body)
			}
		}
	}
	s.nothingCached(right.Digest, wrong.Digest)
	g.set("/v2/app/manifests/"+right.Digest.String(), bytesOf(right.Raw, ct...))
	if r := s.want(200, "GET", "/v2/rogue/app/manifests/"+right.Digest.String(), nil); !bytes.Equal(r.body, right.Raw) {
		t.Error("other bytes")
	}

	blob := layerOf(3, 200_000)
	d := digest.FromBytes(blob)
	path := "/v2/app/blobs/" + d.String()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"longer":      bytesOf(append(bytes.Clone(blob), 'x')),
		"much longer": bytesOf(append(bytes.Clone(blob), blob...)),
		"shorter":     bytesOf(blob[:len(blob)-1], "Content-Length", fmt.Sprint(len(blob)-1)),
		"empty":       bytesOf(nil),
		"longer chunked": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			bytesOf(append(bytes.Clone(blob), 'x'))(w, r)
		},
		"other bytes": bytesOf(layerOf(4, len(blob))),
		"other chunked": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			bytesOf(layerOf(4, len(blob)))(w, r)
		},
		"a range unasked": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(blob)-1, len(blob)))
			w.WriteHeader(206)
			_, _ = w.Write(blob[5:])
		},
	} {
		g.set(path, answer)
		r, err := s.try("GET", "/v2/rogue/app/blobs/"+d.String(), nil)
		if err == nil && r.StatusCode != 502 {
			t.Errorf("%s: %s and %d bytes look complete", name, r.Status, len(r.body))
		}
		s.nothingCached(d)
	}
	g.set(path, bytesOf(blob))
	s.soon("/v2/rogue/app/blobs/"+d.String(), d)
}

// soon gets a blob whose last fetch has just failed: that fetch may not have ended yet, and a
// client that joins it shares its failure. It never gets other bytes.
func (s *stack) soon(path string, d digest.Digest) got {
	s.Helper()
	for range 100 {
		r, err := s.try("GET", path, nil)
		if err == nil && r.StatusCode == 200 {
			if digest.FromBytes(r.body) != d {
				s.Errorf("GET %s: %d other bytes", path, len(r.body))
			}
			return r
		}
	}
	s.Fatalf("GET %s: never right", path)
	return got{}
}

func (s *stack) nothingCached(ds ...digest.Digest) {
	s.Helper()
	for _, d := range ds {
		if _, held := s.cache.Stat(d); held {
			s.Errorf("%s is in the cache", d)
		}
	}
}

// dray passes bytes as they are: it asks for no encoding on behalf of a client, and adds none.
func TestOutageBodiesAreNeverTransformed(t *testing.T) {
	s, g := startRogue(t)
	blob := bytes.Repeat([]byte("compress me "), 20_000)
	d := digest.FromBytes(blob)
	var mu sync.Mutex
	var asked []string
	note := func(next func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.Header.Get("Accept-Encoding"))
			mu.Unlock()
			next(w, r)
		}
	}
	m := imageOf(t, blob)
	g.set("/v2/app/blobs/"+d.String(), note(bytesOf(blob, "Content-Length", fmt.Sprint(len(blob)))))
	g.set("/v2/app/manifests/v1", note(bytesOf(m.Raw, "Content-Type", m.MediaType)))
	for range 2 { // cold and warm
		for _, path := range []string{"manifests/v1", "blobs/" + d.String()} {
			r := s.want(200, "GET", "/v2/rogue/app/"+path, nil, "Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
			if e := r.Header.Get("Content-Encoding"); e != "" || r.ContentLength != int64(len(r.body)) || r.Uncompressed {
				t.Errorf("%s: Content-Encoding %q, length %d of %d", path, e, r.ContentLength, len(r.body))
			}
		}
	}
	for _, a := range asked {
		if a != "" && a != "identity" {
			t.Errorf("the upstream was asked for %q", a)
		}
	}
}
