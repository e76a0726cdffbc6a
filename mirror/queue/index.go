package queue

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// index is the content of the queue in memory: the entries of each repository, oldest first, and
// the blobs that they need. All methods may be called concurrently. The comment of a method says if
// its caller must hold mu.
type index struct {
	maxEntries int
	maxBytes   int64        // 0 means no bound
	size       atomic.Int64 // number of entries; while it is 0, some methods answer without the lock

	mu      sync.Mutex // guards the fields below
	lastID  uint64
	entries map[uint64]*entry
	repos   map[repoKey]*repoQueue
	held    map[digest.Digest]*hold
	adding  int   // number of pushes that are counted (see count) and not entered yet
	bytes   int64 // bytes of the blobs and manifests of all entries and of the pushes in adding
}

func newIndex(maxEntries int, maxBytes int64, lastID uint64) *index {
	return &index{maxEntries: maxEntries, maxBytes: maxBytes, lastID: lastID,
		entries: map[uint64]*entry{}, repos: map[repoKey]*repoQueue{}, held: map[digest.Digest]*hold{}}
}

type repoKey struct{ upstream, repo string }

// repoQueue has the entries of one repository, oldest first.
type repoQueue struct {
	entries []*entry
	busy    bool // an entry is being forwarded
}

type entry struct {
	Entry
	attempt   *attempt // the attempt under way, or the last one
	withdrawn bool     // taken out by a Withdrawal, and left out of a new journal
}

// attempt is one attempt to forward an entry.
type attempt struct {
	ended     chan struct{} // closed when the attempt has ended
	interrupt func()        // ends the attempt early; nil until index.begin sets it
}

// hold is a blob that pushes need. The field release is nil until enter sets it, and again after
// Close. It stays nil if the blob could not be held.
type hold struct {
	size    int64
	users   int
	release func() // allows the blob to be evicted
}

func (x *index) nextID() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lastID++
	return x.lastID
}

// enter appends an entry, which the caller has counted (see count), to its repository. The
// parameter releases has release functions of the entry's blobs. If the index already has a release
// function for a blob, enter returns the new one in extra, and the caller has to call it.
func (x *index) enter(e Entry, releases map[digest.Digest]func()) (extra []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := repoKey{e.Upstream, e.Repository}
	r := x.repos[at]
	if r == nil {
		r = &repoQueue{}
		x.repos[at] = r
	}
	added := &entry{Entry: e}
	r.entries = append(r.entries, added)
	x.entries[e.ID] = added
	x.size.Store(int64(len(x.entries)))
	x.adding--
	for _, b := range e.Blobs {
		h := x.held[b.Digest]
		release := releases[b.Digest]
		delete(releases, b.Digest)
		switch {
		case release == nil:
		case h.release == nil:
			h.release = release
		default:
			extra = append(extra, release)
		}
	}
	return extra
}

// leave removes an entry, and returns the release functions of blobs that no other entry needs. The
// caller holds mu.
func (x *index) leave(e *entry) (releases []func()) {
	delete(x.entries, e.ID)
	x.size.Store(int64(len(x.entries)))
	at := repoKey{e.Upstream, e.Repository}
	r := x.repos[at]
	r.entries = slices.DeleteFunc(r.entries, func(o *entry) bool { return o == e })
	if len(r.entries) == 0 {
		delete(x.repos, at)
	}
	return x.uncount(e.Push)
}

// queued reports whether the newest push of p's reference has p's manifest, and all blobs of that
// push are held.
func (x *index) queued(p Push) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.newest(p.Upstream, p.Repository, p.Reference)
	return e != nil && e.Digest == p.Digest && e.Reference == p.Reference && !slices.ContainsFunc(e.Blobs, func(b Blob) bool { return x.held[b.Digest].release == nil })
}

// newest returns the newest entry whose reference or digest equals the parameter reference, or nil.
// It ignores failed and withdrawn entries, because they may never reach the registry. The caller
// holds mu.
func (x *index) newest(upstream, repo, reference string) *entry {
	r := x.repos[repoKey{upstream, repo}]
	if r == nil {
		return nil
	}
	for _, e := range slices.Backward(r.entries) {
		if e.State != Failed && e.State != dropping && (e.Reference == reference || string(e.Digest) == reference) {
			return e
		}
	}
	return nil
}

// count counts the bytes of a push that is to be added, and counts the push as a user of each of
// its blobs. The caller holds mu, or is the only user of the index.
func (x *index) count(p Push) {
	x.adding++
	x.bytes += int64(len(p.Manifest))
	for _, b := range p.Blobs {
		h := x.held[b.Digest]
		if h == nil {
			h = &hold{size: b.Size}
			x.held[b.Digest] = h
			x.bytes += b.Size
		}
		h.users++
	}
}

// uncount stops counting the bytes of a push, and returns the release functions of blobs that no
// other push needs. The caller holds mu.
func (x *index) uncount(p Push) (releases []func()) {
	x.bytes -= int64(len(p.Manifest))
	for _, b := range p.Blobs {
		h := x.held[b.Digest]
		if h.users--; h.users > 0 {
			continue
		}
		delete(x.held, b.Digest)
		x.bytes -= h.size
		if h.release != nil {
			releases = append(releases, h.release)
		}
	}
	return releases
}

// reserve counts a push before it is added. A blob that another push also needs is counted only
// once. If the queue is full, reserve returns ErrFull and counts nothing.
func (x *index) reserve(p Push) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.entries)+x.adding >= x.maxEntries {
		return fmt.Errorf("%w: %d pushes", ErrFull, x.maxEntries)
	}
	before := x.bytes
	x.count(p)
	if x.maxBytes > 0 && x.bytes > x.maxBytes {
		x.adding--
		x.uncount(p)
		return fmt.Errorf("%w: %d bytes, and the limit is %d", ErrFull, before, x.maxBytes)
	}
	return nil
}

// unreserve undoes reserve, and returns the release functions of blobs that no other push needs.
func (x *index) unreserve(p Push) (releases []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.adding--
	return x.uncount(p)
}

// snapshot returns the contents for a new journal, without withdrawn entries.
func (x *index) snapshot() contents {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := contents{lastID: x.lastID, entries: make(map[uint64]Entry, len(x.entries))}
	for id, e := range x.entries {
		if !e.withdrawn {
			p.entries[id] = e.Entry
		}
	}
	return p
}

// next chooses among the first entries of the repositories that are not busy. It returns the entry
// that has been due for the longest time, and marks its repoQueue busy. If no entry is due, it
// returns nil and how long to wait before the next call.
func (x *index) next(now time.Time) (*entry, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var first *entry
	for _, r := range x.repos {
		if e := r.head(); e != nil && !r.busy && (first == nil || e.due().Before(first.due())) {
			first = e
		}
	}
	if first == nil {
		return nil, lastPause
	}
	if wait := first.due().Sub(now); wait > 0 {
		return nil, wait
	}
	first.State, first.attempt = Forwarding, &attempt{ended: make(chan struct{})}
	x.repos[repoKey{first.Upstream, first.Repository}].busy = true
	return first, 0
}

// head returns the first entry that has not failed. It returns nil if there is none. It also
// returns nil if that entry is withdrawn: the entry may be restored, so later entries must not
// overtake it.
func (r *repoQueue) head() *entry {
	for _, e := range r.entries {
		if e.State == dropping {
			return nil
		}
		if e.State != Failed {
			return e
		}
	}
	return nil
}

func (e *entry) due() time.Time {
	if e.Next.IsZero() {
		return e.Accepted
	}
	return e.Next
}

// begin counts an attempt, and stores interrupt, which ends the attempt early. It returns a copy of
// the entry.
func (x *index) begin(e *entry, interrupt func()) Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Attempts++
	e.attempt.interrupt = interrupt
	return e.Entry
}

// SetError records the current error of an attempt under way, so that operators see why a long
// attempt makes no progress.
func (x *index) SetError(id uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil && e.State == Forwarding {
		e.Error = err.Error()
	}
}

// overtake is called when a push has reached the registry. If reference is a tag, overtake marks
// the entries of this tag whose IDs are below id as overtaken for good, and reports whether it has
// marked any. If reference is a digest, it marks nothing.
func (x *index) overtake(at repoKey, reference string, id uint64) (marked bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.repos[at]
	if r == nil {
		return false
	}
	for _, old := range r.entries {
		if old.ID < id && old.Reference == reference && old.tagged() && !old.Overtaken {
			old.Overtaken, marked = true, true
		}
	}
	return marked
}

// finish ends a successful attempt. Like remove, it removes the entry and returns release
// functions.
func (x *index) finish(e *entry) (releases []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endAttempt(e)
	return x.leave(e)
}

// fail ends an attempt, and gives the entry the state Failed. reason is the text of the error.
func (x *index) fail(e *entry, reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.State, e.Error = Failed, reason
	x.endAttempt(e)
}

// retry makes an entry due at once, unless it is being forwarded.
func (x *index) retry(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil && e.State != Forwarding {
		if e.State == Failed {
			e.Error, e.Attempts = "", 0
		}
		e.State, e.Next = Waiting, time.Now()
	}
}

// remove removes entries, and returns the release functions of blobs that no other entry needs.
func (x *index) remove(entries []*entry) (releases []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		releases = append(releases, x.leave(e)...)
	}
	return releases
}

// releaseAll allows all blobs to be evicted. Their entries stay.
func (x *index) releaseAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range x.held {
		if h.release != nil {
			h.release()
			h.release = nil
		}
	}
}

// requeue ends an attempt. The next attempt is due at the given time. If reason is empty, the error
// of the entry stays as it is.
func (x *index) requeue(e *entry, next time.Time, reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.State, e.Next = Waiting, next
	if reason != "" {
		e.Error = reason
	}
	x.endAttempt(e)
}

// endAttempt marks the end of an attempt. The caller holds mu.
func (x *index) endAttempt(e *entry) {
	x.repos[repoKey{e.Upstream, e.Repository}].busy = false
	close(e.attempt.ended)
}

// repoOf returns the repository of an entry. ok is false if the entry is missing or withdrawn.
func (x *index) repoOf(id uint64) (at repoKey, ok bool) {
	if x.empty() {
		return repoKey{}, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[id]
	if e == nil || e.withdrawn {
		return repoKey{}, false
	}
	return repoKey{e.Upstream, e.Repository}, true
}

// idle returns an entry. The error is ErrBusy if the entry is being forwarded, and ErrNotFound if
// the entry is missing or withdrawn.
func (x *index) idle(id uint64) (Entry, error) {
	for _, e := range x.List() {
		switch {
		case e.ID != id:
		case e.State == Forwarding:
			return Entry{}, fmt.Errorf("push %d: %w", id, ErrBusy)
		default:
			return e, nil
		}
	}
	return Entry{}, unknown(id)
}

// entriesOf lists the entries of a repository that are not withdrawn, oldest first.
func (x *index) entriesOf(at repoKey) []*entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.repos[at]; r != nil {
		return slices.DeleteFunc(slices.Clone(r.entries), func(e *entry) bool { return e.withdrawn })
	}
	return nil
}

// markWithdrawn marks entries as withdrawn, and returns copies of the entries as they were. If an
// entry is being forwarded, markWithdrawn changes nothing and returns the attempt as busy.
func (x *index) markWithdrawn(entries []*entry) (was []Entry, busy *attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		if e.State == Forwarding {
			return nil, e.attempt
		}
	}
	for _, e := range entries {
		was = append(was, e.Entry)
		e.State, e.withdrawn = dropping, true
	}
	return was, nil
}

func (x *index) unmarkWithdrawn(entries []*entry, was []Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, e := range entries {
		e.State, e.withdrawn = was[i].State, false
	}
}

func (x *index) interruptAttempt(a *attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a.interrupt != nil {
		a.interrupt()
	}
}

type stats struct {
	waiting, failed int
	bytes           int64
	oldest          time.Duration // greatest age of an entry that has not failed
	lastError       string        // error of that entry
}

func (x *index) stats(now time.Time) stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := stats{bytes: x.bytes}
	for _, e := range x.entries {
		switch {
		case e.withdrawn:
			continue
		case e.State == Failed:
			s.failed++
			continue
		}
		s.waiting++
		if age := now.Sub(e.Accepted); age > s.oldest {
			s.oldest, s.lastError = age, e.Error
		}
	}
	return s
}

// empty reports whether the queue has no entries, which is the usual case.
func (x *index) empty() bool { return x.size.Load() == 0 }

// Find returns the newest push of a tag or digest to a repository, among the pushes that wait or
// are being forwarded. It returns false if there is no such push.
func (x *index) Find(upstream, repo, reference string) (Push, bool) {
	if x.empty() {
		return Push{}, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.newest(upstream, repo, reference); e != nil {
		return e.Push, true
	}
	return Push{}, false
}

// Pushes lists a repository's pushes that wait or are being forwarded, oldest first.
func (x *index) Pushes(upstream, repo string) []Push {
	if x.empty() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.repos[repoKey{upstream, repo}]
	if r == nil {
		return nil
	}
	var all []Push
	for _, e := range r.entries {
		if e.State != Failed && e.State != dropping {
			all = append(all, e.Push)
		}
	}
	return all
}

// Has reports whether the queue has any push to a repository, even one that has failed or is
// withdrawn.
func (x *index) Has(upstream, repo string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.repos[repoKey{upstream, repo}]
	return r != nil && len(r.entries) > 0
}

// Repositories calls visit for each repository that has a push which waits or is being forwarded.
func (x *index) Repositories(visit func(upstream, repo string)) {
	if x.empty() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for at, r := range x.repos {
		if slices.ContainsFunc(r.entries, func(e *entry) bool { return e.State != Failed && e.State != dropping }) {
			visit(at.upstream, at.repo)
		}
	}
}

// Blob returns the size of a held blob that a push to a repository needs. It also finds the blobs
// of failed and withdrawn pushes, which can be retried or restored. If dray has restarted and could
// not hold a blob again, Blob does not find that blob, so that a client sends it again.
func (x *index) Blob(upstream, repo string, d digest.Digest) (size int64, ok bool) {
	if x.empty() {
		return 0, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.repos[repoKey{upstream, repo}]
	if h := x.held[d]; r == nil || h == nil || h.release == nil {
		return 0, false
	}
	for _, e := range r.entries {
		for _, b := range e.Blobs {
			if b.Digest == d {
				return b.Size, true
			}
		}
	}
	return 0, false
}

// List returns all entries but the withdrawn ones, oldest first. In the result, an entry is also
// overtaken if a later one has the same tag.
func (x *index) List() []Entry {
	if x.empty() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	overtaken := map[uint64]bool{}
	for _, r := range x.repos {
		later := map[string]bool{}
		for _, e := range slices.Backward(r.entries) {
			if e.tagged() && !e.withdrawn {
				overtaken[e.ID] = later[e.Reference]
				later[e.Reference] = true
			}
		}
	}
	all := make([]Entry, 0, len(x.entries))
	for _, id := range slices.Sorted(maps.Keys(x.entries)) {
		if e := x.entries[id]; !e.withdrawn {
			all = append(all, e.Entry)
			all[len(all)-1].Overtaken = e.Overtaken || overtaken[id]
		}
	}
	return all
}
