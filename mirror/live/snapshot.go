package live

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"dray/mirror/admin/api"
)

// Snapshot returns the pulls and pushes, the oldest first.
func (t *Table) Snapshot() api.Live {
	out := api.Live{At: time.Now().UTC(), Pulls: []api.LivePull{}, Pushes: []api.LivePush{}, Displaced: t.lost.Load()}
	for i := range t.shards {
		t.shards[i].collect(&out)
	}
	slices.SortFunc(out.Pulls, func(a, b api.LivePull) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Pushes, func(a, b api.LivePush) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (s *shard) collect(out *api.Live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.owners {
		for _, p := range o.pulls {
			if p.got {
				out.Pulls = append(out.Pulls, o.told(p))
			}
		}
		for _, p := range o.pushes {
			out.Pushes = append(out.Pushes, o.tell(p))
		}
	}
}

// maxWatchers bounds how many calls of Watch can be under way at a time. Each call occupies one of
// the 32 connections of the admin listener, which also serves health and metrics.
const maxWatchers = 16

// Watch yields a snapshot at once and then each second, until ctx ends. It yields an error if
// maxWatchers calls are under way already.
func (t *Table) Watch(ctx context.Context) iter.Seq2[api.Live, error] {
	return func(yield func(api.Live, error) bool) {
		if t.watchers.Add(1) > maxWatchers {
			t.watchers.Add(-1)
			yield(api.Live{}, api.Errorf(api.CodeUnavailable, "%d streams are open already; close one of them, or ask for %slive again and again", maxWatchers, api.Prefix))
			return
		}
		defer t.watchers.Add(-1)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for yield(t.Snapshot(), nil) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}
