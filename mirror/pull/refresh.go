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
	// maxRefreshes bounds each of the maps in refreshes.
	maxRefreshes = 1024
	// refreshRetry is the time from a failed attempt to the next attempt.
	refreshRetry   = 5 * time.Second
	refreshTimeout = time.Minute
)

// refreshes has the tags and the lists of referrers that dray refreshes in the background.
type refreshes struct {
	mu      sync.Mutex // guards the fields below; no other lock is taken while it is locked
	running map[meta.TagKey]bool
	// notBefore has the earliest time of the next attempt, for tags whose last attempt failed.
	notBefore map[meta.TagKey]time.Time
	// refused has the tags whose fact the upstream refused to confirm, with the CheckedAt of that
	// fact.
	refused map[meta.TagKey]time.Time
}

func newRefreshes() *refreshes {
	return &refreshes{running: map[meta.TagKey]bool{}, notBefore: map[meta.TagKey]time.Time{}, refused: map[meta.TagKey]time.Time{}}
}

// begin reports whether to refresh a tag now. If it returns true, the caller must call end or
// putOff later.
func (r *refreshes) begin(k meta.TagKey, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.whyNot(k, now) != "" {
		return false
	}
	r.running[k] = true
	delete(r.notBefore, k)
	return true
}

// heldUp returns why begin would return false for a tag now, or "" if begin would return true.
func (r *refreshes) heldUp(k meta.TagKey, now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whyNot(k, now)
}

// whyNot is heldUp for a caller that holds mu.
func (r *refreshes) whyNot(k meta.TagKey, now time.Time) string {
	switch {
	case r.running[k]:
		return "such a question is under way"
	case now.Before(r.notBefore[k]):
		return "the last such question failed a moment ago"
	case len(r.running) >= maxRefreshes:
		return "too many such questions are under way"
	}
	return ""
}

// refuse records that the upstream refused to confirm the tag's fact with the given CheckedAt.
func (r *refreshes) refuse(k meta.TagKey, checked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refused) >= maxRefreshes {
		for other := range r.refused { // forget one: dray may serve that tag's old answer once more
			delete(r.refused, other)
			break
		}
	}
	r.refused[k] = checked
}

// isRefused reports whether the upstream refused to confirm the tag's fact with the given
// CheckedAt. A newer fact counts as confirmed.
func (r *refreshes) isRefused(k meta.TagKey, checked time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused, ok := r.refused[k]
	if ok && checked.After(refused) {
		delete(r.refused, k)
	}
	return ok && !checked.After(refused)
}

// end ends an attempt that got an answer.
func (r *refreshes) end(k meta.TagKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, k)
}

// putOff ends an attempt that failed. The next attempt may start after refreshRetry.
func (r *refreshes) putOff(k meta.TagKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, k)
	now := time.Now()
	if len(r.notBefore) >= maxRefreshes {
		for k, t := range r.notBefore {
			if !now.Before(t) {
				delete(r.notBefore, k)
			}
		}
	}
	if len(r.notBefore) < maxRefreshes {
		r.notBefore[k] = now.Add(refreshRetry)
	}
}

// staleWhileRevalidate answers from a fact that is no longer fresh, and starts to refresh the tag
// in the background (RFC 5861). It does so until the fact is older than Fresh plus Revalidate of
// the TagPolicy. However many clients ask, one refresh of a tag runs at a time.
// staleWhileRevalidate returns nil if the client must wait for the upstream. The client must
// also wait if the fact says that the tag does not exist, or that the list of referrers is empty.
// Amazon ECR signs an image some time after its push, so the list may have an entry by now.
func (f *finder) staleWhileRevalidate(ctx context.Context, t tag, fact *meta.TagFact) *answer {
	if !f.mayUpdate(t, fact) {
		return nil
	}
	m := f.held(ctx, t, fact.Digest)
	if m == nil || t.subject != "" && noReferrers(m.Raw) {
		return nil
	}
	f.startRefresh(t)
	return &answer{Manifest: m, source: fromUpdating}
}

// mayUpdate reports whether a fact that is not fresh may be served while the upstream is asked in
// the background.
func (f *finder) mayUpdate(t tag, fact *meta.TagFact) bool {
	policy := t.repo.Up.Tags
	return fact != nil && !fact.NotFound && policy.Fresh > 0 && meta.Age(time.Now(), fact.CheckedAt) < policy.Fresh+policy.Revalidate &&
		!f.refreshes.isRefused(t.key(), fact.CheckedAt)
}

// startRefresh starts to refresh a tag in the background, unless a refresh of the tag is under way
// or has just failed.
func (f *finder) startRefresh(t tag) {
	key := t.key()
	if !f.refreshes.begin(key, time.Now()) {
		return
	}
	t.accept = slices.Clone(t.accept)
	started := f.o.Tasks.Start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
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

// refresh asks the upstream for the meaning of a tag, and reports whether it got an answer. A
// refusal is an answer, too. After a refusal, dray no longer serves the old answer at once. The
// next client waits for the upstream, and gets its answer or error.
func (f *finder) refresh(ctx context.Context, t tag) bool {
	fact := newestFact(ctx, f.o.Tags, t)
	if a, err := f.fresh(ctx, t, fact); a != nil || err != nil {
		return true // another request has asked the upstream in the meantime
	}
	a, err := f.together(ctx, upstream.InBackground(), t)
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
	case a.source == fromOrigin, a.source == fromBucket, a.source == fromMember:
		result = "moved"
	}
	f.refreshed.WithLabelValues(t.repo.Up.Name, result).Inc()
	if err != nil {
		f.o.Logger.Debug("tag not refreshed", "tag", t.key().String(), "error", err)
	}
	return result != "failed"
}
