package queue

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// index is what the queue has, in memory: the entries of each repository in their order, and the
// blobs that they need. All methods may be called concurrently.
type index struct {
	maxEntries int
	maxBytes   int64        // 0: no bound
	size       atomic.Int64 // entries, to answer without a lock where there are none

	mu      sync.Mutex // guards below; leaf lock
	lastID  uint64
	entries map[uint64]*entry
	repos   map[repoKey]*repoQueue
	held    map[digest.Digest]*hold
	adding  int   // entries that were let in and are not there yet
	bytes   int64 // of held blobs, of manifests, and of what was let in
}

func newIndex(maxEntries int, maxBytes int64, lastID uint64) *index {
	return &index{maxEntries: maxEntries, maxBytes: maxBytes, lastID: lastID,
		entries: map[uint64]*entry{}, repos: map[repoKey]*repoQueue{}, held: map[digest.Digest]*hold{}}
}

// repoKey is a repository.
type repoKey struct{ upstream, repo string }

// repoQueue is the entries of one repository, in their order.
type repoQueue struct {
	entries []*entry
	busy    bool // one is being forwarded
}

type entry struct {
	Entry
	attempt   chan struct{} // closed when the attempt under way has ended
	interrupt func()        // ends the attempt under way
	withdrawn bool          // the journal does not have it any more
}

// hold is a blob that entries need.
type hold struct {
	size    int64
	users   int
	release func() // nil: it could not be held
}

// nextID is the number of the next entry.
func (x *index) nextID() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lastID++
	return x.lastID
}

// enter puts an entry into its lane and takes over its holds. It returns those that others have
// already.
func (x *index) enter(e Entry, holds map[digest.Digest]func()) (extra []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := repoKey{e.Upstream, e.Repository}
	l := x.repos[at]
	if l == nil {
		l = &repoQueue{}
		x.repos[at] = l
	}
	for _, old := range l.entries {
		if old.Reference == e.Reference && old.Reference != string(old.Digest) {
			old.Overtaken = true
		}
	}
	in := &entry{Entry: e}
	l.entries = append(l.entries, in)
	x.entries[e.ID] = in
	x.size.Store(int64(len(x.entries)))
	x.bytes += int64(len(e.Manifest))
	for _, b := range e.Blobs {
		h := x.held[b.Digest]
		if h == nil {
			h = &hold{size: b.Size}
			x.held[b.Digest] = h
			x.bytes += b.Size
		}
		h.users++
		release := holds[b.Digest]
		delete(holds, b.Digest)
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

// leave takes an entry out, and returns the holds that nobody needs any more. Needs mu.
func (x *index) leave(e *entry) (releases []func()) {
	delete(x.entries, e.ID)
	x.size.Store(int64(len(x.entries)))
	at := repoKey{e.Upstream, e.Repository}
	l := x.repos[at]
	l.entries = slices.DeleteFunc(l.entries, func(o *entry) bool { return o == e })
	if len(l.entries) == 0 {
		delete(x.repos, at)
	}
	x.bytes -= int64(len(e.Manifest))
	for _, b := range e.Blobs {
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

// waits says whether a push is the newest of its reference already, with all that it needs.
func (x *index) waits(p Push) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.newest(p.Upstream, p.Repository, p.Reference)
	return e != nil && e.Digest == p.Digest && e.Reference == p.Reference && !slices.ContainsFunc(e.Blobs, func(b Blob) bool { return x.held[b.Digest].release == nil })
}

// newest is the entry that a reference means until it is forwarded, or nil. What was refused, or is
// being dropped, is not what the registry will have. Needs mu.
func (x *index) newest(upstream, repo, reference string) *entry {
	l := x.repos[repoKey{upstream, repo}]
	if l == nil {
		return nil
	}
	for _, e := range slices.Backward(l.entries) {
		if e.State != Failed && e.State != dropping && (e.Reference == reference || string(e.Digest) == reference) {
			return e
		}
	}
	return nil
}

// reserve lets a push in, as far as the bounds go.
func (x *index) reserve(bytes int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.entries)+x.adding >= x.maxEntries {
		return fmt.Errorf("%w: %d pushes", ErrFull, x.maxEntries)
	}
	if x.maxBytes > 0 && x.bytes+bytes > x.maxBytes {
		return fmt.Errorf("%w: %d bytes, and %d are the limit", ErrFull, x.bytes, x.maxBytes)
	}
	x.adding++
	x.bytes += bytes
	return nil
}

func (x *index) unreserve(bytes int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.adding--
	x.bytes -= bytes
}

// snapshot is what a new journal has to hold.
func (x *index) snapshot() past {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := past{lastID: x.lastID, entries: make(map[uint64]Entry, len(x.entries))}
	for id, e := range x.entries {
		if !e.withdrawn {
			p.entries[id] = e.Entry
		}
	}
	return p
}

// next takes the entry that has been due for the longest, or says how long nothing will be. Its
// repoQueue is then busy.
func (x *index) next(now time.Time) (*entry, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var first *entry
	for _, l := range x.repos {
		if e := l.head(); e != nil && !l.busy && (first == nil || e.due().Before(first.due())) {
			first = e
		}
	}
	if first == nil {
		return nil, lastPause
	}
	if wait := first.due().Sub(now); wait > 0 {
		return nil, wait
	}
	first.State, first.attempt = Forwarding, make(chan struct{})
	x.repos[repoKey{first.Upstream, first.Repository}].busy = true
	return first, 0
}

// head is the entry whose turn it is, or nil. Failed ones are passed over, and those that are being
// dropped.
func (l *repoQueue) head() *entry {
	for _, e := range l.entries {
		if e.State != Failed && e.State != dropping {
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

// begin counts an attempt that can be interrupted, and returns the entry as it is now.
func (x *index) begin(e *entry, interrupt func()) Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Attempts++
	e.interrupt = interrupt
	return e.Entry
}

// SetError says what keeps an attempt under way from getting on. An attempt may go on for long, and
// who looks meanwhile is to see why.
func (x *index) SetError(id uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil && e.State == Forwarding {
		e.Error = err.Error()
	}
}

// finish takes out an entry that was being forwarded, and returns the holds that nobody needs any
// more.
func (x *index) finish(e *entry) (releases []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped(e)
	return x.leave(e)
}

// fail keeps an entry that was being forwarded as a failed one.
func (x *index) fail(e *entry, why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.State, e.Error = Failed, why
	x.stopped(e)
}

// retry has an entry wait and be due at once, unless somebody works on it.
func (x *index) retry(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if in := x.entries[id]; in != nil && in.State != Forwarding {
		if in.State == Failed {
			in.Error, in.Attempts = "", 0
		}
		in.State, in.Next = Waiting, time.Now()
	}
}

// remove takes entries out, and returns the holds that nobody needs any more.
func (x *index) remove(entries []*entry) (releases []func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		releases = append(releases, x.leave(e)...)
	}
	return releases
}

// releaseAll lets every blob go.
func (x *index) releaseAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range x.held {
		if h.release != nil {
			h.release()
		}
	}
	clear(x.held)
}

// again lets an entry wait.
func (x *index) again(e *entry, next time.Time, why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.State, e.Next = Waiting, next
	if why != "" {
		e.Error = why
	}
	x.stopped(e)
}

// stopped ends an attempt. Needs mu.
func (x *index) stopped(e *entry) {
	x.repos[repoKey{e.Upstream, e.Repository}].busy = false
	close(e.attempt)
}

// repoOf is where an entry is, if there is one.
func (x *index) repoOf(id uint64) (at repoKey, held bool) {
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

// look finds an entry that nobody works on.
func (x *index) look(id uint64) (Entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[id]
	switch {
	case e == nil || e.withdrawn:
		return Entry{}, unknown(id)
	case e.State == Forwarding:
		return Entry{}, fmt.Errorf("push %d: %w", id, ErrBusy)
	}
	return e.Entry, nil
}

// in lists the entries of a repository in their order, without those that somebody else has
// withdrawn.
func (x *index) in(at repoKey) []*entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l := x.repos[at]; l != nil {
		return slices.DeleteFunc(slices.Clone(l.entries), func(e *entry) bool { return e.withdrawn })
	}
	return nil
}

// take takes entries out of their turns and returns what they were, or one that is being forwarded.
func (x *index) take(entries []*entry) (was []State, busy *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		if e.State == Forwarding {
			return nil, e
		}
	}
	for _, e := range entries {
		was = append(was, e.State)
		e.State, e.withdrawn = dropping, true
	}
	return was, nil
}

// giveBack undoes take.
func (x *index) giveBack(entries []*entry, was []State) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, e := range entries {
		e.State, e.withdrawn = was[i], false
	}
}

// stop interrupts an attempt.
func (x *index) stop(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.State == Forwarding && e.interrupt != nil {
		e.interrupt()
	}
}

type stats struct {
	waiting, failed int
	bytes           int64
	oldest          time.Duration // of those that wait
	last            string        // error of the oldest
}

func (x *index) stats(now time.Time) stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := stats{bytes: x.bytes}
	for _, e := range x.entries {
		if e.State == Failed {
			s.failed++
			continue
		}
		s.waiting++
		if age := now.Sub(e.Accepted); age > s.oldest {
			s.oldest, s.last = age, e.Error
		}
	}
	return s
}

// empty says that there are no entries at all, which is the usual case, or no index.
func (x *index) empty() bool { return x.size.Load() == 0 }

// Find returns the push that a tag or digest of a repository means, as long as it waits.
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

// Pushes lists what waits for a repository, in order.
func (x *index) Pushes(upstream, repo string) []Push {
	if x.empty() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.repos[repoKey{upstream, repo}]
	if l == nil {
		return nil
	}
	var all []Push
	for _, e := range l.entries {
		if e.State != Failed && e.State != dropping {
			all = append(all, e.Push)
		}
	}
	return all
}

// Blob returns the size of a blob that a push to a repository needs and brings along, refused ones
// included: they may be tried again. One that could not be held after a restart is not there:
// clients are to send it anew.
func (x *index) Blob(upstream, repo string, d digest.Digest) (size int64, ok bool) {
	if x.empty() {
		return 0, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.repos[repoKey{upstream, repo}]
	if h := x.held[d]; l == nil || h == nil || h.release == nil {
		return 0, false
	}
	for _, e := range l.entries {
		for _, b := range e.Blobs {
			if b.Digest == d {
				return b.Size, true
			}
		}
	}
	return 0, false
}

// List returns all entries in the order in which they were accepted.
func (x *index) List() []Entry {
	if x.empty() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]Entry, 0, len(x.entries))
	for _, e := range x.entries {
		if !e.withdrawn {
			all = append(all, e.Entry)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
