package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// Errors of this package; test for them with errors.Is.
var (
	// ErrFull says that there are as many pushes, or bytes of them, as the queue may hold.
	ErrFull = errors.New("the queue of pushes is full")
	// ErrNotFound says that there is no push of that number.
	ErrNotFound = errors.New("no such push in the queue")
	// ErrBusy says that the push is just being forwarded.
	ErrBusy = errors.New("the push is being forwarded right now")
	// ErrOvertaken says that the tag was pushed again since: forwarding the older push would take
	// it back.
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

// Queue is an open queue. All methods may be called concurrently.
type Queue struct {
	*index
	opts      Options
	log       *slog.Logger
	writer    *writer
	wake      chan struct{} // tells Run of something to do; capacity 1
	forwarded *prometheus.CounterVec
}

// Open reads the journal and holds again what it names. It starts nothing. A journal of a later
// version is an error. A full disk is none: what waits is forwarded, and Run writes the journal
// anew as soon as it can.
func Open(ctx context.Context, opts Options) (*Queue, error) {
	opts.MaxEntries = cmp.Or(opts.MaxEntries, 10_000)
	opts.Parallel = cmp.Or(opts.Parallel, 4)
	opts.Old = cmp.Or(opts.Old, 5*time.Minute)
	q := &Queue{opts: opts, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)), wake: make(chan struct{}, 1)}
	q.forwarded = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_queue_attempts_total",
		Help: "Attempts to forward acknowledged pushes, by upstream and result: forwarded (the upstream has the image), refused (for good), failed (dray tries again)."}, []string{"upstream", "result"})
	j, past, full, err := openJournal(opts, q.log)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if full != nil {
		q.log.Error("the journal of pushes cannot be written anew", "error", full)
	}
	q.index = newIndex(opts.MaxEntries, opts.MaxBytes, past.lastID)
	q.writer = &writer{journal: j, log: q.log, now: q.index.snapshot, writing: make(chan struct{}, 1), torn: full}
	for _, e := range past.sorted() {
		q.restore(ctx, e)
	}
	return q, nil
}

// Empty returns a queue that holds nothing and takes nothing, for where pushes are not acknowledged
// before they are forwarded.
func Empty() *Queue {
	x := newIndex(0, 0, 0)
	return &Queue{index: x, writer: &writer{journal: &journal{}, now: x.snapshot, writing: make(chan struct{}, 1)}, wake: make(chan struct{}, 1)}
}

// Takes reports whether pushes can be added: not to a queue that is always empty.
func (q *Queue) Takes() bool { return q.maxEntries > 0 }

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
	for _, release := range q.index.enter(e, holds) {
		release()
	}
}

// Close gives the journal up. Run must have returned.
func (q *Queue) Close() error {
	err := q.writer.close()
	q.index.releaseAll()
	return err
}

// Add accepts a push: when it returns nil, the push is on stable storage and will be forwarded. One
// that waits already is accepted once. It returns ErrFull where there is no room, and the failures
// of Hold and of the disk.
func (q *Queue) Add(ctx context.Context, p Push) error {
	if q.index.waits(p) {
		return nil
	}
	room := Entry{Push: p}.Bytes()
	if err := q.index.reserve(room); err != nil {
		return err
	}
	defer q.index.unreserve(room)
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

// append writes a push to the journal and makes it an entry. It returns the holds that others have
// already.
func (q *Queue) append(ctx context.Context, p Push, holds map[digest.Digest]func()) (extra []func(), err error) {
	if err := q.writer.lock(ctx); err != nil {
		return nil, err
	}
	defer q.writer.unlock()
	e := Entry{ID: q.index.nextID(), Push: p, State: Waiting, Accepted: time.Now()}
	if err := q.writer.write(record{Op: opPush, Entry: &e}); err != nil {
		return nil, err
	}
	return q.index.enter(e, holds), nil
}

func (q *Queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
