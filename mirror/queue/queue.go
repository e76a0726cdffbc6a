// Package queue keeps pushes that were acknowledged before they were forwarded, until they are.
//
// Invariants:
//   - What Add has accepted is on stable storage, with all blobs that it needs, and is forwarded at least once, or refused
//     by its registry for good, or dropped by hand, or deleted like what is there already. No other way leads out.
//   - Pushes to one repository are forwarded in the order in which they were accepted, so that an index follows its
//     children and a tag ends where it was pushed last. A refused one stays, seen by everybody, and holds nobody up.
//   - Entries and bytes are bounded.
//   - The journal is rewritten from memory whenever a write to it fails, so that no record follows a torn one, and none says
//     that a push is done while an older one, done before it, is still to be found.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Errors of this package; test for them with errors.Is.
var (
	// ErrFull says that there are as many pushes, or bytes of them, as the queue may hold.
	ErrFull = errors.New("the queue of pushes is full")
	// ErrNotFound says that there is no push of that number.
	ErrNotFound = errors.New("no such push in the queue")
	// ErrBusy says that the push is just being forwarded.
	ErrBusy = errors.New("the push is being forwarded right now")
	// ErrOvertaken says that the tag was pushed again since: forwarding the older push would take it back.
	ErrOvertaken = errors.New("the tag was pushed again since")
	// ErrRefused marks what the registry will refuse again. Who forwards wraps it.
	ErrRefused = errors.New("refused for good")
)

// Blob is content that a push needs.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes
}

// Push is a manifest on its way to a registry.
type Push struct {
	Upstream   string        `json:"upstream"`
	Repository string        `json:"repository"`
	Reference  string        `json:"reference"` // tag or digest, as the client gave it
	MediaType  string        `json:"media_type"`
	Digest     digest.Digest `json:"digest"`
	Manifest   []byte        `json:"manifest,omitempty"` // exact bytes
	// Blobs are what it needs and the registry may lack. They are held until it is forwarded.
	Blobs []Blob `json:"blobs,omitempty"`
	// User is who pushed, if somebody was recognised.
	User string `json:"user,omitempty"`
}

// State says what becomes of an entry.
type State string

// The states.
const (
	Waiting    State = "waiting"
	Forwarding State = "forwarding"
	Failed     State = "failed" // refused by the registry; somebody has to look at it

	dropping State = "dropping" // as far as the journal is being told
)

// Entry is a push in the queue.
type Entry struct {
	ID uint64 `json:"id"`
	Push
	State    State     `json:"state"`
	Accepted time.Time `json:"accepted"`
	Attempts int       `json:"attempts"`
	// Next is when it is tried again, if it was tried.
	Next  time.Time `json:"next,omitzero"`
	Error string    `json:"error,omitempty"` // of the last attempt, or what keeps the one under way from getting on
	// Overtaken says that the tag was pushed again since.
	Overtaken bool `json:"overtaken,omitempty"`
}

// Bytes is what an entry holds by itself: what several need is counted for each.
func (e Entry) Bytes() int64 {
	n := int64(len(e.Manifest))
	for _, b := range e.Blobs {
		n += b.Size
	}
	return n
}

// Options of a queue.
type Options struct {
	// Directory of the journal; created when missing.
	Directory string
	// Hold makes a blob durable and keeps it until release is called.
	Hold func(ctx context.Context, d digest.Digest) (release func(), err error)
	// MaxEntries and MaxBytes bound what is held; 0 means 10,000, and no bound.
	MaxEntries int
	MaxBytes   int64
	// Parallel is how many repositories are forwarded to at a time; 0 means 4.
	Parallel int
	// Old is from which age on a waiting push is reported by Check; 0 means 5 minutes.
	Old time.Duration
	// Logger gets what no caller is told; nil discards.
	Logger *slog.Logger
	// Sync, when set, takes the place of (*os.File).Sync. It exists for tests of failing disks.
	Sync func() error
}

// Queue is an open queue. All methods may be called concurrently. A nil Queue is empty.
type Queue struct {
	opts    Options
	log     *slog.Logger
	journal *journal
	turn    chan struct{} // full while one writes to the journal; capacity 1
	wake    chan struct{} // tells Run of something to do; capacity 1
	metrics *metrics
	size    atomic.Int64 // entries, to answer without a lock where there are none

	mu      sync.Mutex // guards below; leaf lock
	lastID  uint64
	entries map[uint64]*entry
	lanes   map[place]*lane
	held    map[digest.Digest]*hold
	adding  int   // entries that Add has let in and that are not there yet
	bytes   int64 // of held blobs, of manifests, and of what Add has let in
	torn    error // why the journal does not say what is here; nil: it does

	tried time.Time // when mend last tried; Run's own
}

// place is a repository.
type place struct{ upstream, repo string }

// lane is the entries of one repository, in their order.
type lane struct {
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

// Open reads the journal and holds again what it names. It starts nothing. A journal of a later version
// is an error. A full disk is none: what waits is forwarded, and Run writes the journal anew as soon as it can.
func Open(ctx context.Context, opts Options) (*Queue, error) {
	opts.MaxEntries = cmp.Or(opts.MaxEntries, 10_000)
	opts.Parallel = cmp.Or(opts.Parallel, 4)
	opts.Old = cmp.Or(opts.Old, 5*time.Minute)
	q := &Queue{
		opts: opts, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)), turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		entries: map[uint64]*entry{}, lanes: map[place]*lane{}, held: map[digest.Digest]*hold{},
	}
	q.metrics = newMetrics(q)
	j, past, full, err := openJournal(opts, q.log)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if full != nil {
		q.log.Error("the journal of pushes cannot be written anew", "error", full)
	}
	q.journal, q.lastID, q.torn = j, past.lastID, full
	for _, e := range past.sorted() {
		q.restore(ctx, e)
	}
	return q, nil
}

// restore takes over an entry of a former process. Its clock may have been ahead.
func (q *Queue) restore(ctx context.Context, e Entry) {
	if now := time.Now(); e.Accepted.After(now) {
		e.Accepted = now
	}
	holds := map[digest.Digest]func(){}
	for _, b := range e.Blobs {
		if holds[b.Digest] != nil {
			continue
		}
		release, err := q.opts.Hold(ctx, b.Digest)
		if err != nil {
			q.log.Error("a blob of an acknowledged push is not held any more", "push", e.ID, "upstream", e.Upstream, "repository", e.Repository,
				"reference", e.Reference, "digest", b.Digest, "error", err)
			continue
		}
		holds[b.Digest] = release
	}
	q.mu.Lock()
	extra := q.enter(e, holds)
	q.mu.Unlock()
	for _, release := range extra {
		release()
	}
}

// Close gives the journal up. Run must have returned.
func (q *Queue) Close() error {
	var err error
	if q.journal.broken {
		err = q.journal.rewrite(q.snapshot())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.held {
		if h.release != nil {
			h.release()
		}
	}
	clear(q.held)
	return errors.Join(err, q.journal.close())
}

// Add accepts a push: when it returns nil, the push is on stable storage and will be forwarded. One that waits already
// is accepted once. It returns ErrFull where there is no room, and the failures of Hold and of the disk.
func (q *Queue) Add(ctx context.Context, p Push) error {
	if q.waits(p) {
		return nil
	}
	room := Entry{Push: p}.Bytes()
	if err := q.reserve(room); err != nil {
		return err
	}
	defer q.unreserve(room)
	holds := map[digest.Digest]func(){}
	drop := func() {
		for _, release := range holds {
			release()
		}
	}
	for _, b := range p.Blobs {
		if holds[b.Digest] != nil {
			continue
		}
		release, err := q.opts.Hold(ctx, b.Digest)
		if err != nil {
			drop()
			return fmt.Errorf("hold %s: %w", b.Digest, err)
		}
		holds[b.Digest] = release
	}
	extra, err := q.append(ctx, p, holds)
	if err != nil {
		drop()
		return fmt.Errorf("queue: %w", err)
	}
	for _, release := range extra {
		release()
	}
	q.nudge()
	return nil
}

// append writes a push to the journal and makes it an entry. It returns the holds that others have already.
func (q *Queue) append(ctx context.Context, p Push, holds map[digest.Digest]func()) (extra []func(), err error) {
	if err := q.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer q.freeTurn()
	q.mu.Lock()
	q.lastID++
	e := Entry{ID: q.lastID, Push: p, State: Waiting, Accepted: time.Now()}
	q.mu.Unlock()
	if err := q.write(record{Op: opPush, Entry: &e}); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.enter(e, holds), nil
}

// enter puts an entry into its lane and takes over its holds. Needs mu.
func (q *Queue) enter(e Entry, holds map[digest.Digest]func()) (extra []func()) {
	at := place{e.Upstream, e.Repository}
	l := q.lanes[at]
	if l == nil {
		l = &lane{}
		q.lanes[at] = l
	}
	for _, old := range l.entries {
		if old.Reference == e.Reference && old.Reference != string(old.Digest) {
			old.Overtaken = true
		}
	}
	in := &entry{Entry: e}
	l.entries = append(l.entries, in)
	q.entries[e.ID] = in
	q.size.Store(int64(len(q.entries)))
	q.bytes += int64(len(e.Manifest))
	for _, b := range e.Blobs {
		h := q.held[b.Digest]
		if h == nil {
			h = &hold{size: b.Size}
			q.held[b.Digest] = h
			q.bytes += b.Size
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
func (q *Queue) leave(e *entry) (releases []func()) {
	delete(q.entries, e.ID)
	q.size.Store(int64(len(q.entries)))
	at := place{e.Upstream, e.Repository}
	l := q.lanes[at]
	l.entries = slices.DeleteFunc(l.entries, func(o *entry) bool { return o == e })
	if len(l.entries) == 0 {
		delete(q.lanes, at)
	}
	q.bytes -= int64(len(e.Manifest))
	for _, b := range e.Blobs {
		h := q.held[b.Digest]
		if h.users--; h.users > 0 {
			continue
		}
		delete(q.held, b.Digest)
		q.bytes -= h.size
		if h.release != nil {
			releases = append(releases, h.release)
		}
	}
	return releases
}

// waits says whether a push is the newest of its reference already, with all that it needs.
func (q *Queue) waits(p Push) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.newest(p.Upstream, p.Repository, p.Reference)
	return e != nil && e.Digest == p.Digest && e.Reference == p.Reference && !slices.ContainsFunc(e.Blobs, func(b Blob) bool { return q.held[b.Digest].release == nil })
}

// reserve lets a push in, as far as the bounds go.
func (q *Queue) reserve(bytes int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries)+q.adding >= q.opts.MaxEntries {
		return fmt.Errorf("%w: %d pushes", ErrFull, q.opts.MaxEntries)
	}
	if q.opts.MaxBytes > 0 && q.bytes+bytes > q.opts.MaxBytes {
		return fmt.Errorf("%w: %d bytes, and %d are the limit", ErrFull, q.bytes, q.opts.MaxBytes)
	}
	q.adding++
	q.bytes += bytes
	return nil
}

func (q *Queue) unreserve(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.adding--
	q.bytes -= bytes
}

// takeTurn waits until nobody else writes to the journal.
func (q *Queue) takeTurn(ctx context.Context) error {
	select {
	case q.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (q *Queue) freeTurn() { <-q.turn }

// write puts a record into the journal. Needs the turn.
func (q *Queue) write(r record) error {
	err := q.journal.append(r, q.snapshot)
	q.tore(err)
	return err
}

// settled says that what is here holds, although the journal may not have it: err. Needs the turn.
func (q *Queue) settled(err error) {
	q.journal.broken = q.journal.broken || err != nil
	q.tore(err)
}

// tore keeps the reason why the journal has to be written anew, if it has. Needs the turn.
func (q *Queue) tore(err error) {
	if !q.journal.broken {
		err = nil // nothing of what has failed is left in it
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.torn = err
}

func (q *Queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// snapshot is what a new journal has to hold.
func (q *Queue) snapshot() past {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := past{lastID: q.lastID, entries: make(map[uint64]Entry, len(q.entries))}
	for id, e := range q.entries {
		if !e.withdrawn {
			p.entries[id] = e.Entry
		}
	}
	return p
}
