package repository

import (
	"testing"

	"dray/cache"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/queue"
	"dray/upstream"
)

// TestReplace: an upstream that takes the place of another one has the same keys, also after it was
// away. After an error nothing has changed.
func TestReplace(t *testing.T) {
	facts := metatest.NewMemory()
	up := func(name string) *Upstream {
		return &Upstream{Name: name, Source: struct{ upstream.Source }{}, Lister: struct{ upstream.Lister }{}}
	}
	first := up("up")
	s, err := NewStore(Options{
		Cache: &cache.Cache{}, Tags: meta.NewTags(facts, meta.Options{}), Visibility: meta.NewVisibility(facts, meta.Options{}), Presence: meta.NewPresence(facts, meta.PresenceOptions{}),
		Upstreams: []*Upstream{first}, Queue: queue.Empty(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := s.Repo(first, "team/app")
	key := r.Key("sha256:1")
	for i, next := range [][]*Upstream{{up("other"), up("up")}, {up("other")}, {up("up"), up("other")}} {
		if err := s.Replace(next); err != nil {
			t.Fatal(err)
		}
		now := s.Upstream("up")
		if now == nil {
			if got := key.Now(); got.Up != first {
				t.Errorf("%d: a key whose upstream is gone has another one", i)
			}
			continue
		}
		other := s.Repo(now, "team/app")
		if now == first || other == r || other.Key("sha256:1") != key || !Same(r, other) || key.Now() != other {
			t.Errorf("%d: the repository is not the same", i)
		}
		if Same(r, s.Repo(now, "team/ap")) || Same(r, s.Repo(s.Upstream("other"), "team/app")) {
			t.Errorf("%d: other repositories are the same", i)
		}
	}
	before := s.Upstream("up")
	for name, wrong := range map[string][]*Upstream{"incomplete": {up("up"), {Name: "x"}}, "twice": {up("up"), up("up")}, "no queue": {{Name: "up", Source: struct{ upstream.Source }{}, Lister: struct{ upstream.Lister }{}, AcknowledgeLocally: true}}} {
		if err := s.Replace(wrong); err == nil || s.Upstream("up") != before || s.Upstream("other") == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
