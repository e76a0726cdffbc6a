package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// The tests TestBudget... are the request budgets of docs/design.md, one for each line that
// concerns one node: the exact number of requests that dray sends. Those of pushes are in
// budget_push_test.go.

type kinds = map[ecrtest.Kind]int64

// warm starts a stack and lets it see one image of ECR, tokens included.
func warm(t *testing.T, edits ...string) (*stack, seeded) {
	t.Helper()
	s := startStack(t, t.TempDir(), edits...)
	img := seed(t, s.ecr, "team/app", "v1", 300<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1}) // tag, not held: 1 GET; token: 1 SDK call
	return s, img
}

// At the start dray sends each upstream one request, so that the first client finds a connection
// and a token, and the log shows whether the upstream works.
func TestBudgetStart(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	seed(t, s.ecr, "team/app", "v1", 10<<10)
	s.greet(t.Context(), s.registries, slog.LevelWarn)
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "base": 1})
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	spent(t, s.ecr, kinds{"manifest-get": 1})
	for _, name := range []string{"ecr", "hub"} {
		if want := `msg="upstream is available" upstream=` + name; !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
}

func TestBudgetTagOrDigestHeldAndFresh(t *testing.T) {
	s, img := warm(t)
	for range 3 {
		for _, ref := range []string{"v1", img.manifest.Digest.String()} {
			for _, method := range []string{"HEAD", "GET"} {
				r := s.want(200, method, "/v2/team/app/manifests/"+ref, nil, "Accept", img.manifest.MediaType, "Accept", "*/*")
				if r.Header.Get("Docker-Content-Digest") != img.manifest.Digest.String() || r.ContentLength != int64(len(img.manifest.Raw)) {
					t.Errorf("%s %s: %v", method, ref, r.Header)
				}
			}
		}
	}
	spent(t, s.ecr, kinds{})
}

func TestBudgetTagPastItsWindow(t *testing.T) {
	s, img := warm(t, "fresh: 1h", "fresh: 0s")
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	spent(t, s.ecr, kinds{"manifest-head": 1})
	// A tag that moved costs the HEAD that shows it and the GET of what it is now.
	moved := seed(t, s.ecr, "team/app", "v1", 400<<10)
	r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	if r.Header.Get("Docker-Content-Digest") != moved.manifest.Digest.String() || moved.manifest.Digest == img.manifest.Digest {
		t.Errorf("the moved tag is served as %s", r.Header.Get("Docker-Content-Digest"))
	}
	spent(t, s.ecr, kinds{"manifest-head": 1, "manifest-get": 1})
}

func TestBudgetTagShortlyPastItsWindow(t *testing.T) {
	s, img := warm(t, "fresh: 1h", "fresh: 1ms, revalidate: 1h")
	<-time.After(2 * time.Millisecond)
	slow := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestHead}, Latency: time.Minute})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			if !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("X-Cache") != "updating" {
				t.Errorf("%v", r.Header)
			}
		})
	}
	wg.Wait()
	s.ecr.RemoveFault(slow)
	for i := 0; s.ecr.Count("manifest-head") == 0 && i < 500; i++ {
		<-time.After(time.Millisecond)
	}
	spent(t, s.ecr, kinds{"manifest-head": 1})
}

// The last part of a quota is for clients: with less left, nobody is asked in the background.
func TestBudgetQuotaReserve(t *testing.T) {
	for limit, heads := range map[int]int64{4: 1, 1: 0} { // 3 of 4 are left, or none
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Hub: ecrtest.HubOptions{PullLimit: limit}})
			s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(), "fresh: 1h", "fresh: 1ms, revalidate: 1h")
			seed(t, hub, "library/alpine", "3", 1<<10)
			s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil)
			<-time.After(2 * time.Millisecond)
			s.header(s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil), "X-Cache", "updating")
			for i := 0; hub.Count("manifest-head") < heads && i < 500; i++ {
				<-time.After(time.Millisecond)
			}
			s.stop()
			if n := hub.Count("manifest-head"); n != heads {
				t.Errorf("%d questions, want %d", n, heads)
			}
			families, err := s.metrics.Gather()
			if err != nil {
				t.Fatal(err)
			}
			shown := false
			for _, f := range families {
				shown = shown || f.GetName() == "dray_upstream_quota_remaining" && f.GetMetric()[0].GetGauge().GetValue() == float64(limit-1)
			}
			if !shown {
				t.Error("the quota is not in the metrics")
			}
		})
	}
}

func TestBudgetTagWhileTheUpstreamIsDown(t *testing.T) {
	s, img := warm(t, "fresh: 1h", "fresh: 0s")
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestHead, ecrtest.KindManifestGet}, Count: -1, Status: 503})
	for i := range 3 {
		r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
		if !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("X-Cache") != "stale" || r.Header.Get("Warning") == "" {
			t.Errorf("answer %d while the upstream is down: %v", i, r.Header)
		}
	}
	spent(t, s.ecr, kinds{"manifest-head": 1, "manifest-get": 1})
}

func TestBudgetBlobWhoseManifestWasSeen(t *testing.T) {
	s, img := warm(t)
	r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	if digest.FromBytes(r.body) != img.layer || r.Header.Get("X-Cache") != "origin" {
		t.Errorf("cold blob: %v", r.Header)
	}
	spent(t, s.ecr, kinds{"blob-get": 1, "s3-get": 1})
	// Held, and shown by a manifest of the repository.
	r = s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	if digest.FromBytes(r.body) != img.layer || r.Header.Get("X-Cache") != "disk" {
		t.Errorf("warm blob: %v", r.Header)
	}
	s.want(200, "HEAD", "/v2/team/app/blobs/"+img.layer.String(), nil)
	spent(t, s.ecr, kinds{})
}

func TestBudgetBlobForManyClientsAtOnce(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 8<<20)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1})
	s.ecr.SetBandwidth(ecrtest.Bandwidth{PerConnection: 16 << 20})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			var headers []string
			from := 0
			if i%2 == 1 {
				from = i * 200 << 10
				headers = []string{"Range", fmt.Sprintf("bytes=%d-", from)}
			}
			r, err := s.try("GET", "/v2/team/app/blobs/"+img.layer.String(), nil, headers...)
			if err != nil || len(r.body) != int(img.manifest.Layers[0].Size)-from {
				t.Errorf("client %d: %d bytes, %v", i, len(r.body), err)
			}
			if i%2 == 0 && digest.FromBytes(r.body) != img.layer {
				t.Errorf("client %d got other bytes", i)
			}
		})
	}
	// containerd opens a range and drops it after its chunk.
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/team/app/blobs/"+img.layer.String(), nil)
	req.Header.Set("Range", "bytes=100-")
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 10)
		resp.Body.Close()
	}
	wg.Wait()
	spent(t, s.ecr, kinds{"blob-get": 1, "s3-get": 1})
}

func TestBudgetLargeBlob(t *testing.T) {
	const layer = 36 << 20
	for _, clients := range []int{1, 16} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			s := startStack(t, t.TempDir())
			img := seed(t, s.ecr, "team/app", "v1", layer)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1})
			s.ecr.SetBandwidth(ecrtest.Bandwidth{PerConnection: 32 << 20})
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					from := i * 1 << 20
					r, err := s.try("GET", "/v2/team/app/blobs/"+img.layer.String(), nil, "Range", fmt.Sprintf("bytes=%d-", from))
					if err != nil || len(r.body) != int(img.manifest.Layers[0].Size)-from {
						t.Errorf("client %d: %d bytes, %v", i, len(r.body), err)
					}
					if i == 0 && digest.FromBytes(r.body) != img.layer {
						t.Error("other bytes")
					}
				})
			}
			wg.Wait()
			pieces := (img.manifest.Layers[0].Size + 8<<20 - 1) / (8 << 20)
			if sent := s.ecr.Counters()["s3-get"].BytesOut; sent != img.manifest.Layers[0].Size {
				t.Errorf("%d bytes from the upstream", sent)
			}
			spent(t, s.ecr, kinds{"blob-get": pieces, "s3-get": pieces})
		})
	}
}

// prefetching makes a stack fetch ahead.
func prefetching() []string {
	return []string{"prefetch: {enabled: false}", "prefetch: {max_layer: 1MiB}"}
}

func TestBudgetPrefetch(t *testing.T) {
	s := startStack(t, t.TempDir(), prefetching()...)
	small := seed(t, s.ecr, "team/app", "v1", 300<<10)
	m := small.manifest
	blobs := []digest.Digest{m.Config.Digest, small.layer}
	whole := kinds{"manifest-get": 1, "blob-get": 2, "s3-get": 2}
	first := kinds{"GetAuthorizationToken": 1, "manifest-get": 1, "blob-get": 2, "s3-get": 2}

	// A HEAD fetches the manifest and nothing else.
	s.want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
	<-s.ecr.Idle()
	if n := s.ecr.Count("blob-get"); n != 0 {
		t.Errorf("%d blobs fetched after a HEAD", n)
	}
	// Clients that ask at once, and again, join what was begun.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			for _, d := range blobs {
				if r := s.want(200, "GET", "/v2/team/app/blobs/"+d.String(), nil); digest.FromBytes(r.body) != d {
					t.Errorf("other bytes for %s", d)
				}
			}
		})
	}
	wg.Wait()
	spent(t, s.ecr, first)

	// Without the client asking, all of another image comes; once.
	other := seed(t, s.ecr, "team/app", "v2", 400<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v2", nil)
	for _, c := range other.manifest.Children() {
		held(t, s, c.Digest)
	}
	s.want(200, "GET", "/v2/team/app/manifests/v2", nil)
	if other.manifest.Config.Digest == m.Config.Digest {
		whole = kinds{"manifest-get": 1, "blob-get": 1, "s3-get": 1}
	}
	spent(t, s.ecr, whole)
	s.want(200, "GET", "/v2/team/app/blobs/"+other.layer.String(), nil)
	spent(t, s.ecr, kinds{})

	// A large layer waits for the client.
	large := seed(t, s.ecr, "team/app", "v3", 2<<20)
	s.want(200, "GET", "/v2/team/app/manifests/v3", nil)
	held(t, s, large.manifest.Config.Digest)
	<-s.ecr.Idle()
	if _, there := s.cache.Stat(large.layer); there {
		t.Error("a large layer was fetched ahead")
	}
}

func TestBudgetWarm(t *testing.T) {
	s := startStack(t, t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 300<<10)
	s.admin() // before several goroutines need it
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if code, _, stderr := s.warm("", "team/app:v1"); code != 0 {
				t.Error(code, stderr)
			}
		})
	}
	wg.Wait()
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
	for _, c := range img.manifest.Children() {
		s.want(200, "GET", "/v2/team/app/blobs/"+c.Digest.String(), nil)
	}
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1, "blob-get": 2, "s3-get": 2})
}

// held waits until the cache holds a blob.
func held(t *testing.T, s *stack, d digest.Digest) {
	t.Helper()
	for range 500 {
		if _, ok := s.cache.Stat(d); ok {
			return
		}
		<-time.After(10 * time.Millisecond) // the fetch belongs to nobody who could be waited for
	}
	t.Errorf("%s was not fetched ahead", d)
}

// Ranges that a registry throttles or ignores cost speed, not the pull.
func TestLargeBlobWithoutRanges(t *testing.T) {
	const layer = 30 << 20
	throttled := ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBlobGet}, Skip: 1, Count: 3, Status: 429}
	cut := ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Skip: 1, Count: 2, CutAt: ecrtest.At(1 << 20)}
	for name, fault := range map[string]ecrtest.Fault{"throttled": throttled, "cut": cut} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "prefixes: [aws]\n", "prefixes: [aws]\n  parallel_fill: {threshold: 16MiB}\n")
			img := seed(t, s.ecr, "team/app", "v1", layer)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			s.ecr.AddFault(fault)
			r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
			if digest.FromBytes(r.body) != img.layer {
				t.Error("other bytes")
			}
			if name == "throttled" { // the first piece, three refused, and the other three pieces, by one to three requests
				<-s.ecr.Idle()
				if n := s.ecr.Count("blob-get"); n < 5 || n > 7 {
					t.Errorf("%d requests", n)
				}
			}
		})
	}
}

func TestBudgetTagForManyClientsAtOnce(t *testing.T) {
	s := startStack(t, t.TempDir())
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { s.want(200, "GET", "/v2/team/app/manifests/v1", nil) })
	}
	wg.Wait()
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1})
}

func TestBudgetBlobOfARepositoryThatNeverShowedIt(t *testing.T) {
	s, img := warm(t)
	layer := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil).body
	spent(t, s.ecr, kinds{"blob-get": 1, "s3-get": 1})

	// The same bytes in another repository: the upstream confirms them, once.
	pushDirectly(t, s.ecr, "team/copy", "v1", layer)
	for range 2 {
		r := s.want(200, "GET", "/v2/team/copy/blobs/"+img.layer.String(), nil)
		if digest.FromBytes(r.body) != img.layer {
			t.Error("other bytes")
		}
	}
	spent(t, s.ecr, kinds{"blob-head": 1})

	// A repository that does not have them: the upstream does not confirm, and nothing is served.
	s.ecr.CreateRepository("team/other")
	r := s.want(404, "GET", "/v2/team/other/blobs/"+img.layer.String(), nil)
	if len(r.body) > 1000 {
		t.Error("the blob was served")
	}
	spent(t, s.ecr, kinds{"blob-head": 1})
}

func TestBudgetNotFoundAgain(t *testing.T) {
	s, img := warm(t)
	absent := digest.FromString("absent")
	for _, path := range []string{"manifests/v9", "manifests/" + absent.String(), "blobs/" + absent.String()} {
		for range 3 {
			s.want(404, "GET", "/v2/team/app/"+path, nil)
		}
	}
	spent(t, s.ecr, kinds{"manifest-get": 2, "blob-get": 1})
	// dray remembers the registry's answer: a missing repository is not a missing tag.
	for range 2 {
		r := s.want(404, "GET", "/v2/no/repository/manifests/v1", nil)
		if e := oci.DecodeError(&http.Response{StatusCode: 404, Body: io.NopCloser(bytes.NewReader(r.body))}); e.Code != "NAME_UNKNOWN" || !strings.Contains(e.Message, "no/repository") {
			t.Errorf("the client is told %s", r.body)
		}
	}
	spent(t, s.ecr, kinds{"manifest-get": 1})
	// A tag that is pushed is there at once, whatever was said before.
	s.want(201, "PUT", "/v2/team/app/manifests/v9", img.manifest.Raw, "Content-Type", img.manifest.MediaType)
	s.want(200, "GET", "/v2/team/app/manifests/v9", nil)
}

func TestBudgetToken(t *testing.T) {
	s := startStack(t, t.TempDir())
	for i := range 5 {
		seed(t, s.ecr, fmt.Sprintf("team/app%d", i), "v1", 1<<10)
		seed(t, s.hub, "library/alpine", fmt.Sprint(i), 1<<10)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { s.want(200, "GET", fmt.Sprintf("/v2/team/app%d/manifests/v1", i%5), nil) })
		wg.Go(func() { s.want(200, "GET", fmt.Sprintf("/v2/hub/alpine/manifests/%d", i%5), nil) })
	}
	wg.Wait()
	if n := s.ecr.Count("GetAuthorizationToken"); n != 1 {
		t.Errorf("%d SDK calls for one principal and region", n)
	}
	if n := s.hub.Count(ecrtest.KindToken); n != 1 {
		t.Errorf("%d tokens for one host and scope", n)
	}
}
