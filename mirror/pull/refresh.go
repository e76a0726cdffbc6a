package pull

import (
	"context"
	"slices"
	"sync"
	"time"

	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

const (
	// maxRefreshes bounds the tags that are asked for again, or were a moment ago.
	maxRefreshes = 1024
	// refreshAgain is the time from an attempt that told nothing to the next one.
	refreshAgain = 5 * time.Second
	// refreshWithin bounds one attempt.
	refreshWithin = time.Minute
)

// refreshes are the tags whose answer is served once more while the upstream is asked
// for the next one.
type refreshes struct {
	mu    sync.Mutex // guards below; leaf lock
	under map[meta.TagKey]bool
	// later are tags that are left alone until then.
	later map[meta.TagKey]time.Time
	// refused says which fact, by when it was checked, the upstream has refused to confirm.
	refused map[meta.TagKey]time.Time
}

func newRefreshes() *refreshes {
	return &refreshes{under: map[meta.TagKey]bool{}, later: map[meta.TagKey]time.Time{}, refused: map[meta.TagKey]time.Time{}}
}

// begin reports whether a tag is to be asked for now; if so, end or putOff follows.
func (r *refreshes) begin(k meta.TagKey, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under[k] || now.Before(r.later[k]) || len(r.under) >= maxRefreshes {
		return false
	}
	r.under[k] = true
	delete(r.later, k)
	return true
}

// refuse says that the upstream refuses to tell whether a fact still holds.
func (r *refreshes) refuse(k meta.TagKey, checked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refused) >= maxRefreshes {
		for other := range r.refused { // which costs that tag one more question
			delete(r.refused, other)
			break
		}
	}
	r.refused[k] = checked
}

// isRefused reports whether a fact is not to be served again without a question. A newer one is.
func (r *refreshes) isRefused(k meta.TagKey, checked time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused, ok := r.refused[k]
	if ok && checked.After(refused) {
		delete(r.refused, k)
	}
	return ok && !checked.After(refused)
}

// end follows an attempt that told something.
func (r *refreshes) end(k meta.TagKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.under, k)
}

// putOff follows an attempt that told nothing: the tag is left alone for a while.
func (r *refreshes) putOff(k meta.TagKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.under, k)
	now := time.Now()
	if len(r.later) >= maxRefreshes {
		for k, t := range r.later {
			if !now.Before(t) {
				delete(r.later, k)
			}
		}
	}
	if len(r.later) < maxRefreshes {
		r.later[k] = now.Add(refreshAgain)
	}
}

// aging answers from a fact whose window has ended a short while ago, and asks the
// upstream for the next answer without anybody waiting for it: one HEAD, however many
// clients come. It is nil where a client has to wait.
func (f *finder) aging(ctx context.Context, t tag, fact *meta.TagFact) *answer {
	policy, key := t.repo.Up.Tags, t.key()
	if fact == nil || fact.NotFound || policy.Fresh <= 0 || meta.Age(time.Now(), fact.CheckedAt) >= policy.Fresh+policy.Revalidate || f.refreshes.isRefused(key, fact.CheckedAt) {
		return nil
	}
	m := t.repo.Held(ctx, fact.Digest)
	if m == nil {
		return nil
	}
	if f.refreshes.begin(key, time.Now()) {
		t.accept = slices.Clone(t.accept)
		started := f.o.Tasks.Start(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, refreshWithin)
			defer cancel()
			if f.refresh(ctx, t) {
				f.refreshes.end(key)
			} else {
				f.refreshes.putOff(key)
			}
		})
		if !started {
			f.refreshes.putOff(key)
		}
	}
	return &answer{Manifest: m, source: fromUpdating}
}

// refresh asks what a tag is now, and reports whether that is known afterwards. What the
// upstream refuses is not served any longer: the next client asks, and is told why.
func (f *finder) refresh(ctx context.Context, t tag) bool {
	fact := newest(ctx, f.o.Tags, t)
	if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
		return true // somebody else has asked
	}
	a, err := f.askTag(ctx, upstream.InBackground(), t, fact)
	result := "unchanged"
	switch {
	case ctx.Err() != nil:
		result = "failed"
	case err != nil:
		result = "refused"
		if !oci.NotFound(err) && fact != nil {
			f.refreshes.refuse(t.key(), fact.CheckedAt)
		}
	case a.stale != nil:
		result, err = "failed", a.stale
	case a.source == fromOrigin:
		result = "moved"
	}
	f.refreshed.WithLabelValues(t.repo.Up.Name, result).Inc()
	if err != nil {
		f.o.Logger.Debug("tag not refreshed", "tag", t.key().String(), "error", err)
	}
	return result != "failed"
}
