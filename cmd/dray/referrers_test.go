package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// signed is a stack with an image in ECR that is signed there, past dray.
func signed(t *testing.T, edits ...string) (s *stack, img seeded, path string) {
	t.Helper()
	s, img = warm(t, edits...)
	s.sign(img.manifest, "application/x.signature")
	return s, img, "/v2/team/app/referrers/" + img.manifest.Digest.String()
}

// sign puts a referrer into ECR, past dray, and forgets the requests that it takes.
func (s *stack) sign(subject *oci.Manifest, artifactType string) *oci.Manifest {
	s.Helper()
	a := referrer(s.TB.(*testing.T), subject, artifactType)
	putDirectly(s, s.ecr, "team/app", a.Digest.String(), a, imageConfig)
	return a
}

// lists checks how many referrers a list has, and where dray has it from.
func (s *stack) lists(path string, n int, source string) {
	s.Helper()
	r := s.want(200, "GET", path, nil)
	if got := strings.Count(string(r.body), `"digest"`); got != n || r.Header.Get("X-Cache") != source {
		s.Errorf("%d referrers from %q, want %d from %q: %s", got, r.Header.Get("X-Cache"), n, source, r.body)
	}
}

func TestBudgetReferrersHeldAndFresh(t *testing.T) {
	s, _, path := signed(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { s.want(200, "GET", path, nil) })
	}
	wg.Wait()
	s.lists(path, 1, "cache")
	s.lists(path+"?artifactType=application/x.other", 0, "cache")
	spent(t, s.ecr, kinds{"referrers": 1})
}

// A signature that comes to the registry past dray shows when the window has ended.
func TestBudgetReferrersPastTheirWindow(t *testing.T) {
	s, img, path := signed(t, "fresh: 1h", "fresh: 0s")
	s.lists(path, 1, "origin")
	s.lists(path, 1, "cache") // unchanged
	spent(t, s.ecr, kinds{"referrers": 2})
	s.sign(img.manifest, "application/x.more")
	s.lists(path, 2, "origin")
	spent(t, s.ecr, kinds{"referrers": 1})
}

func TestBudgetReferrersShortlyPastTheirWindow(t *testing.T) {
	s, img, path := signed(t, "fresh: 1h", "fresh: 1ms, revalidate: 1h")
	s.lists(path, 1, "origin")
	spent(t, s.ecr, kinds{"referrers": 1})
	s.sign(img.manifest, "application/x.more")
	<-time.After(2 * time.Millisecond)
	s.lists(path, 1, "updating")
	s.until(func() bool { return s.ecr.Count("referrers") > 0 })
	spent(t, s.ecr, kinds{"referrers": 1})
	// A list without referrers is not served any more.
	other := seed(t, s.ecr, "team/app", "v2", 10<<10)
	none := "/v2/team/app/referrers/" + other.manifest.Digest.String()
	s.lists(none, 0, "origin")
	s.sign(other.manifest, "application/x.signature")
	<-time.After(2 * time.Millisecond)
	s.lists(none, 1, "origin")
}

func TestBudgetReferrersWhileTheUpstreamIsDown(t *testing.T) {
	s, img, path := signed(t, "fresh: 1h", "fresh: 0s")
	s.lists(path, 1, "origin")
	s.ecr.ResetCounters()
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindReferrers}, Count: -1, Status: 503})
	for range 3 {
		s.lists(path, 1, "stale")
	}
	// Nothing is known about this one, and dray does not say that it has no referrers.
	r := s.want(503, "GET", "/v2/team/app/referrers/"+digest.FromBytes(img.manifest.Raw[1:]).String(), nil)
	if r.Header.Get("Retry-After") == "" {
		t.Errorf("%v", r.Header)
	}
	spent(t, s.ecr, kinds{"referrers": 1})
}

// A registry without the call is asked for it once in each window, and then for the tag.
func TestBudgetReferrersUnsupported(t *testing.T) {
	for _, status := range []int{404, 406} {
		s := startDialect(t, ecrtest.Dialect{ReferrersStatus: status}, &recording{})
		img := seed(t, s.hub, "team/app", "v1", 100)
		for range 3 {
			s.want(200, "GET", "/hub/v2/team/app/referrers/"+img.manifest.Digest.String(), nil)
		}
		if calls, tags := s.hub.Count(ecrtest.KindReferrers), s.hub.Count(ecrtest.KindManifestGet); calls != 2 || tags != 1 { // the first call is challenged
			t.Errorf("%d: %d requests for referrers, %d for the tag", status, calls, tags)
		}
	}
}

// A client that pushes or deletes a referrer through dray sees it on the list at once. The referrer
// is cached like any other manifest, with its blobs.
func TestReferrersThroughDray(t *testing.T) {
	s, img, path := signed(t, "push: true", "push: true\n  delete: true")
	s.lists(path, 1, "origin")
	s.upload("team/app", imageConfig)
	a := referrer(t, img.manifest, "application/x.more")
	s.want(201, "PUT", "/v2/team/app/manifests/"+a.Digest.String(), a.Raw, "Content-Type", a.MediaType)
	s.lists(path, 2, "origin")
	s.ecr.ResetCounters()
	s.want(200, "GET", "/v2/team/app/manifests/"+a.Digest.String(), nil)
	s.want(200, "GET", "/v2/team/app/blobs/"+a.Config.Digest.String(), nil)
	s.lists(path, 2, "cache")
	spent(t, s.ecr, kinds{})
	s.want(202, "DELETE", "/v2/team/app/manifests/"+a.Digest.String(), nil)
	s.lists(path, 1, "origin")
	// The list goes with its subject, and comes back with it.
	s.want(202, "DELETE", "/v2/team/app/manifests/"+img.manifest.Digest.String(), nil)
	s.ecr.ResetCounters()
	s.want(200, "GET", path, nil)
	if s.ecr.Count("referrers") != 1 {
		t.Error("the list of a deleted image is still served")
	}
}

// A referrer that waits in the queue is on the list, whether the registry answers or not.
func TestReferrersQueued(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	m := s.push("team/app", "v1", layerOf(1, 1000))
	s.forwarded()
	path := "/v2/team/app/referrers/" + m.Digest.String()
	s.lists(path, 0, "origin")
	s.outage()
	a := referrer(t, m, "application/x.signature")
	s.want(201, "PUT", "/v2/team/app/manifests/"+a.Digest.String(), a.Raw, "Content-Type", a.MediaType)
	for _, of := range []struct {
		query string
		n     int
	}{{"", 1}, {"?artifactType=application/x.signature", 1}, {"?artifactType=application/x.other", 0}} {
		if r := s.want(200, "GET", path+of.query, nil); strings.Count(string(r.body), a.Digest.String()) != of.n {
			t.Errorf("%q: %s", of.query, r.body)
		}
	}
}

// A referrer that waits in the queue is also on a list that is too long to be put together.
func TestReferrersQueuedOnALongList(t *testing.T) {
	sw := ecrtest.DefaultSwitches()
	sw.ReferrersPageSize = 1
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), acknowledging...)
	img := seed(t, s.ecr, "team/app", "v1", 100)
	const n = 23
	for i := range n {
		s.sign(img.manifest, fmt.Sprintf("application/x.type%d", i))
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Count: -1, Status: 503})
	a := referrer(t, img.manifest, "application/x.signature")
	s.want(201, "PUT", "/v2/team/app/manifests/"+a.Digest.String(), a.Raw, "Content-Type", a.MediaType)
	listed, queued := 0, 0
	for path := "/v2/team/app/referrers/" + img.manifest.Digest.String(); path != ""; {
		r := s.want(200, "GET", path, nil)
		listed += strings.Count(string(r.body), `"digest"`)
		queued += strings.Count(string(r.body), a.Digest.String())
		path = next(t, r)
	}
	if listed != n+1 || queued != 1 {
		t.Errorf("%d referrers, want %d; the queued one %d times", listed, n+1, queued)
	}
}

// A long list is passed on in pages, whole.
func TestReferrersOfManyPages(t *testing.T) {
	sw := ecrtest.DefaultSwitches()
	sw.ReferrersPageSize = 1
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	img := seed(t, s.ecr, "team/app", "v1", 100)
	const n = 23
	for i := range n {
		s.sign(img.manifest, fmt.Sprintf("application/x.type%d", i))
	}
	listed := 0
	for path := "/v2/team/app/referrers/" + img.manifest.Digest.String(); path != ""; {
		r := s.want(200, "GET", path, nil)
		listed += strings.Count(string(r.body), `"digest"`)
		path = next(t, r)
	}
	if listed != n {
		t.Errorf("%d referrers, want %d", listed, n)
	}
}
