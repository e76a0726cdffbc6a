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

// Errors of this package. Callers test for them with errors.Is.
var (
	// ErrFull says that the push would exceed Options.MaxEntries or Options.MaxBytes.
	ErrFull = errors.New("the queue of pushes is full")
	// ErrNotFound says that the queue has no push with the given ID.
	ErrNotFound = errors.New("no such push in the queue")
	// ErrBusy says that the push is being forwarded at the moment.
	ErrBusy = errors.New("the push is being forwarded")
	// ErrOvertaken says that the tag was pushed again later, so forwarding the older push would undo
	// the later one.
	ErrOvertaken = errors.New("a later push moved the tag")
	// ErrRefused says that a further attempt would also fail. To report this, a [Forward] function
	// returns an error that wraps ErrRefused.
	ErrRefused = errors.New("refused permanently")
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
	// Blobs are the blobs that the manifest needs and the registry may lack. The queue holds them (see
	// Options.Hold) until the push leaves the queue.
	Blobs []Blob `json:"blobs,omitempty"`
	// User is the name of the user who pushed, if the client was authenticated.
	User string `json:"user,omitempty"`
}

// tagged reports whether the client gave a tag and not a digest.
func (p *Push) tagged() bool { return p.Reference != string(p.Digest) }

// State is the state of an entry.
type State string

// The states.
const (
	Waiting    State = "waiting"
	Forwarding State = "forwarding"
	Failed     State = "failed" // refused by the registry; waits for an operator to retry or drop it

	dropping State = "dropping" // taken out by a Withdrawal that still waits for a call of Done or Restore
)

// Entry is a push in the queue.
type Entry struct {
	ID uint64 `json:"id"`
	Push
	State    State     `json:"state"`
	Accepted time.Time `json:"accepted"`
	Attempts int       `json:"attempts"`
	// Next is the time at which the next attempt is due. If Next is zero, the attempt has been due
	// since Accepted.
	Next time.Time `json:"next,omitzero"`
	// Error is the error of the last attempt. During an attempt, it may say why the attempt makes no
	// progress (see SetError).
	Error string `json:"error,omitempty"`
	// Overtaken says that a later push of the tag is in the queue or was forwarded. In a journal,
	// Overtaken says only that a later push was forwarded, because a push that is still in the queue
	// can be withdrawn.
	Overtaken bool `json:"overtaken,omitempty"`
}

// Bytes returns the size of an entry's manifest and blobs. A blob that several entries need is
// counted in each of them.
func (e Entry) Bytes() int64 {
	n := int64(len(e.Manifest))
	for _, b := range e.Blobs {
		n += b.Size
	}
	return n
}

// Options are the settings of a queue.
type Options struct {
	// Directory has the journal. Open creates the directory if it is missing.
	Directory string
	// Hold puts a blob on stable storage, and keeps it from being evicted until release is called.
	Hold func(ctx context.Context, d digest.Digest) (release func(), err error)
	// MaxEntries and MaxBytes bound the queue. 0 means 10,000 entries and any number of bytes.
	MaxEntries int
	MaxBytes   int64
	// Parallel is the number of repositories to which the queue forwards at the same time. 0 means 4.
	Parallel int
	// Old is the age at which Check begins to report a push in the queue. 0 means 5 minutes.
	Old time.Duration
	// Logger gets the results of attempts, and errors that no method returns. If Logger is nil, these
	// messages are discarded.
	Logger *slog.Logger
	// Sync, if set, is called in place of (*os.File).Sync. It exists for tests of failing disks.
	Sync func() error
}

// Queue is an open queue. All methods may be called concurrently.
type Queue struct {
	*index
	opts      Options
	log       *slog.Logger
	writer    *writer
	wake      chan struct{} // wakes Run; capacity 1
	forwarded *prometheus.CounterVec
}

// Open reads the journal and holds the blobs of its entries again. It starts no goroutine. Open
// returns an error if a later version of dray wrote the journal. A full disk is no error: Run then
// forwards the entries, and rewrites the journal as soon as it can.
func Open(ctx context.Context, opts Options) (*Queue, error) {
	opts.MaxEntries = cmp.Or(opts.MaxEntries, 10_000)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	j, past, full, err := openJournal(opts, opts.Logger)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if full != nil {
		opts.Logger.Error("cannot rewrite the journal of pushes", "error", full)
	}
	q := newQueue(opts, j, past.lastID)
	q.writer.staleErr = full
	for _, e := range past.sorted() {
		q.restore(ctx, e)
	}
	q.writer.wake = q.nudge
	return q, nil
}

// Empty returns a queue that is always empty. It is for a mirror without local acknowledgement.
func Empty() *Queue {
	return newQueue(Options{Logger: slog.New(slog.DiscardHandler)}, &journal{}, 0)
}

// newQueue makes a queue without entries.
func newQueue(opts Options, j *journal, lastID uint64) *Queue {
	opts.Parallel = cmp.Or(opts.Parallel, 4)
	opts.Old = cmp.Or(opts.Old, 5*time.Minute)
	x := newIndex(opts.MaxEntries, opts.MaxBytes, lastID)
	return &Queue{
		index: x, opts: opts, log: opts.Logger, wake: make(chan struct{}, 1),
		writer: &writer{journal: j, log: opts.Logger, snapshot: x.snapshot, writing: make(chan struct{}, 1)},
		forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_queue_attempts_total",
			Help: "Attempts to forward acknowledged pushes, by upstream and result: forwarded (the upstream has the image), refused (for good), failed (dray tries again)."}, []string{"upstream", "result"}),
	}
}

// Takes reports whether pushes can be added, which is false for the queue of Empty.
func (q *Queue) Takes() bool { return q.maxEntries > 0 }

// restore adds an entry of an earlier process. If its time of acceptance is in the future, because
// a clock was ahead, restore sets it to now.
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
			q.log.Error("blob of an acknowledged push is missing", "push", e.ID, "upstream", e.Upstream, "repository", e.Repository,
				"reference", e.Reference, "digest", b.Digest, "error", err)
			continue
		}
		holds[b.Digest] = release
	}
	q.index.count(e.Push)
	for _, release := range q.index.enter(e, holds) {
		release()
	}
}

// Close closes the journal and releases all blobs. Run must have returned.
func (q *Queue) Close() error {
	err := q.writer.close()
	q.index.releaseAll()
	return err
}

// Add accepts a push. When it returns nil, the push is on stable storage and will be forwarded. Add
// does nothing if the newest push of p.Reference that waits or is being forwarded has the same
// manifest as p, and the queue holds all blobs of that push. If the queue is full, Add returns
// ErrFull. It also returns errors of Hold and of the disk, and the cause of ctx if ctx ends before
// the push is written.
func (q *Queue) Add(ctx context.Context, p Push) error {
	if q.index.queued(p) {
		return nil
	}
	if err := q.index.reserve(p); err != nil {
		return err
	}
	holds := map[digest.Digest]func(){}
	drop := func() {
		for _, release := range q.index.unreserve(p) {
			release()
		}
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

// append writes a push to the journal and enters it into the index. extra is the result of
// index.enter.
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
