package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/mirror"
	"dray/mirror/identity"
	"dray/mirror/mirrortest"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/upstream"
	"dray/upstream/oci"
)

// timed is a Source that keeps the times at which manifests were got.
type timed struct {
	upstream.Source
	mu   sync.Mutex
	gets map[string][]time.Time // by repository
	err  error
}

func (s *timed) Manifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	s.mu.Lock()
	s.gets[repo.Name] = append(s.gets[repo.Name], time.Now())
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Source.Manifest(ctx, repo, ref, accept)
}

func (s *timed) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// take returns how often each repository was asked for, and begins anew.
func (s *timed) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for repo, times := range s.gets {
		n[repo] = len(times)
	}
	s.gets = map[string][]time.Time{}
	return n
}

const day = 24 * time.Hour

// keeping runs a mirror that keeps images alive, on the facts of a fixture and before its registry,
// until stop.
func (h *fixture) keeping(facts meta.Store, s *timed) (l *mirror.Listener, stop func()) {
	h.Helper()
	m, stop := mirrortest.Run(h, mirror.Options{
		Cache: h.Cache, Tags: meta.NewTags(facts, meta.Options{}), Visibility: meta.NewVisibility(facts, meta.Options{}), Presence: meta.NewPresence(facts, meta.PresenceOptions{}),
		LastPulls:   meta.NewLastPulls(facts, meta.Options{}),
		Replaceable: h.replaceable(s, map[string]time.Duration{"up": day}),
	})
	return &mirror.Listener{Mirror: m, Listener: request.Listener{Name: "l", Policy: identity.Policy{Role: identity.RoleMirror}, Routes: &route.Table{Order: []route.Route{{Upstream: "up"}, {Upstream: "other", Prefixes: []string{"other"}}}}}},
		stop
}

// replaceable has two upstreams before the registry of a fixture.
func (h *fixture) replaceable(s *timed, every map[string]time.Duration) mirror.Replaceable {
	return mirror.Replaceable{
		Upstreams: []*repository.Upstream{
			{Name: "up", Registry: "up.example", Source: s, Sink: h.Registry, Lister: h.Registry, Tags: repository.TagPolicy{Fresh: 1000 * time.Hour}},
			{Name: "other", Registry: "other.example", Source: s, Lister: h.Registry, Tags: repository.TagPolicy{Fresh: 1000 * time.Hour}},
		},
		KeepAlive: every,
	}
}

// kept has images in repositories a and b, pulled once.
func kept(t *testing.T) (h *fixture, s *timed, l *mirror.Listener, stop func()) {
	h = newFixture(t)
	s = &timed{Source: h.Registry, gets: map[string][]time.Time{}}
	l, stop = h.keeping(h.Facts, s)
	for _, repo := range []string{"a", "b"} {
		h.Hold(repo, "v1", []byte("layer of "+repo))
		h.pullBy(l, repo)
	}
	s.want(t, "a", 1, "b", 1)
	return h, s, l, stop
}

// pullBy gets an image through a listener.
func (h *fixture) pullBy(l *mirror.Listener, path string) {
	h.Helper()
	before := h.Listener
	h.Listener = l
	defer func() { h.Listener = before }()
	h.Want(200, "GET", "/v2/"+path+"/manifests/v1", nil)
}

func (s *timed) want(t *testing.T, pairs ...any) {
	t.Helper()
	want := map[string]int{}
	for i := 0; i < len(pairs); i += 2 {
		want[pairs[i].(string)] = pairs[i+1].(int)
	}
	if got := s.take(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

// A reload begins and ends the requests, and sends them to the registry that the upstream has now.
func TestKeepAliveIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		next := &timed{Source: h.Registry, gets: map[string][]time.Time{}}
		for i, every := range []time.Duration{0, day, 0, day} {
			h.pullBy(l, "a")
			if err := l.Mirror.Replace(h.replaceable(next, map[string]time.Duration{"up": every})); err != nil {
				t.Fatal(err)
			}
			h.pullBy(l, "a")
			time.Sleep(3 * day)
			if every == 0 {
				next.want(t)
			} else {
				next.want(t, "a", 1)
			}
			if got := s.take(); len(got) > 0 {
				t.Errorf("%d: the former registry was asked: %v", i, got)
			}
		}
	})
}

// An image that clients pull from here is asked for once a day, and one that they do not pull is
// not.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		for range 10 * 24 {
			h.pullBy(l, "a")
			time.Sleep(time.Hour)
		}
		s.mu.Lock()
		times := s.gets["a"]
		s.mu.Unlock()
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d < day || d > day+10*time.Minute {
				t.Errorf("touch %d comes %v after the one before", i, d)
			}
		}
		if len(times) != 9 && len(times) != 10 {
			t.Errorf("%d touches in ten days", len(times))
		}
		s.take()
		// The pulls since the last touch are worth one more, and then it is quiet.
		time.Sleep(10 * day)
		s.want(t, "a", 1)
		h.pullBy(l, "b")
		time.Sleep(2 * time.Minute)
		s.want(t, "b", 1) // the last touch was long ago
		// HEAD is no pull.
		h.Listener = l
		h.Want(200, "HEAD", "/v2/a/manifests/v1", nil)
		time.Sleep(2 * day)
		s.want(t)
		if n := mirrortest.Counted(t, l.Mirror.Collectors(), "dray_keep_alive_requests_total"); n < 11 {
			t.Errorf("%v touches counted", n)
		}
	})
}

// Other registries are not asked.
func TestKeepAliveElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		h.Hold("c", "v1", []byte("layer of c"))
		for range 100 {
			h.pullBy(l, "other/c")
			time.Sleep(time.Hour)
		}
		s.want(t, "c", 1)
	})
}

// Mirrors that share their facts ask once between them, and so does a mirror that is restarted, for
// what was pulled before as well. Without facts an image costs one request more.
func TestKeepAliveShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		other, stopOther := h.keeping(h.Facts, s)
		pull := func(days int) {
			for range 24 * days {
				h.pullBy(l, "a")
				h.pullBy(other, "a")
				time.Sleep(time.Hour)
			}
		}
		pull(1)
		time.Sleep(time.Hour)
		s.want(t, "a", 1)
		pull(3)
		s.want(t, "a", 3)

		h.pullBy(l, "a")
		time.Sleep(5 * time.Minute)
		stopOther()
		stop()
		time.Sleep(day)
		l, stop = h.keeping(h.Facts, s)
		time.Sleep(2 * time.Minute)
		s.want(t, "a", 1) // pulled before the restart
		stop()
		l, stop = h.keeping(h.Facts, s)
		defer func() { stop() }()
		h.pullBy(l, "a")
		time.Sleep(time.Hour)
		s.want(t)

		for e, err := range h.Memory.Scan(t.Context(), "v1/touch/") {
			if err == nil {
				err = h.Memory.Delete(t.Context(), e.Key)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		stop()
		l, stop = h.keeping(h.Facts, s)
		h.pullBy(l, "a")
		h.pullBy(l, "b")
		time.Sleep(2 * time.Hour)
		s.want(t, "a", 1, "b", 1)
	})
}

// A registry or a store that fails costs nothing but time.
func TestKeepAliveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		time.Sleep(day)
		s.fail(oci.ErrUnavailable)
		h.pullBy(l, "a")
		h.pullBy(l, "b")
		time.Sleep(time.Hour)
		if n := s.take(); n["a"] > 6 || n["b"] > 6 || n["a"] == 0 || n["b"] == 0 {
			t.Errorf("a failing registry is asked %v times an hour", n)
		}
		s.fail(nil)
		time.Sleep(time.Hour)
		s.want(t, "a", 1, "b", 1)

		// Facts that cannot be read are no reason to ask.
		time.Sleep(2 * day)
		h.Facts.Fail(errors.New("down"), 0)
		h.Listener = l
		for range 100 {
			h.pullBy(l, "a")
			time.Sleep(time.Minute)
		}
		asked := s.take()["a"]
		h.Facts.Fail(nil, 0)
		time.Sleep(2 * time.Minute)
		if n := s.take()["a"]; n != 1 && asked < 100 { // a pull by tag without facts asks, which counts as well
			t.Errorf("%d touches", n)
		}
	})
}

// A reload does not end the pause after a failed request.
func TestKeepAliveFailsBeforeReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		time.Sleep(day)
		s.fail(oci.ErrUnavailable)
		h.pullBy(l, "a")
		time.Sleep(2 * time.Minute)
		s.want(t, "a", 1)
		if err := l.Mirror.Replace(h.replaceable(s, map[string]time.Duration{"up": day})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day/100 - 3*time.Minute)
		s.want(t)
		time.Sleep(5 * time.Minute)
		s.want(t, "a", 1)
	})
}

// An image that the registry no longer has is left alone.
func TestKeepAliveAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		time.Sleep(day)
		h.pullBy(l, "a")
		h.Registry.DropManifests()
		time.Sleep(time.Hour)
		s.want(t, "a", 2) // by digest, and by the tag it was pulled by
		time.Sleep(3 * day)
		s.want(t)
	})
}

// A registry that converts a manifest knows it by its tag alone. The tag of a pull is used however
// often clients pull by digest before and after it.
func TestKeepAliveByTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, l, stop := kept(t)
		defer stop()
		d := h.Registry.Held("a", oci.Reference{Tag: "v1"}).Digest
		h.Registry.DropManifest("a", oci.Reference{Digest: d})
		h.Listener = l
		pull := func() { h.Want(200, "GET", "/v2/a/manifests/"+d.String(), nil) }
		for i := range 3 {
			time.Sleep(day)
			pull()
			time.Sleep(time.Hour)
			if n := s.take()["a"]; n != 2 {
				t.Errorf("%d: %d requests, and not one by digest and one by tag", i, n)
			}
		}
		touches := meta.NewLastPulls(h.Facts, meta.Options{})
		if err := touches.Set(t.Context(), "up", "a", d, meta.TouchFact{Touched: time.Now()}); err != nil { // the tag is lost
			t.Fatal(err)
		}
		pull()
		time.Sleep(time.Hour)
		h.pullBy(l, "a")
		pull()
		time.Sleep(day)
		if n := s.take()["a"]; n != 2 {
			t.Errorf("%d requests after a pull by digest and one by tag", n)
		}
	})
}

// An image whose last touch lies in the future is touched, and then a day later.
func TestTouchedInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, _, stop := kept(t)
		stop()
		touches := meta.NewLastPulls(h.Facts, meta.Options{})
		for touch, err := range touches.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			touch.Touched, touch.Pulled = time.Now().Add(1000*day), touch.Repo == "a"
			if err := touches.Set(t.Context(), touch.Upstream, touch.Repo, touch.Digest, touch.TouchFact); err != nil {
				t.Fatal(err)
			}
		}
		l, stop := h.keeping(h.Facts, s)
		defer stop()
		h.pullBy(l, "b") // a was pulled before the restart
		time.Sleep(3 * time.Minute)
		s.want(t, "a", 1, "b", 1)
		time.Sleep(day / 2)
		s.want(t)
	})
}
