package mirror

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// forward is the way of one blob to an upstream. It begins with the first byte that
// the client sends and cannot complete before the local bytes are verified.
type forward struct {
	cancel context.CancelCauseFunc
	// identified is closed once the outcome of the local upload is known: digest, or
	// refused.
	identified chan struct{}
	once       sync.Once
	digest     digest.Digest
	refused    error
	// done is closed when the upstream has the blob or will not get it: err.
	done chan struct{}
	err  error
	// scan looks at the same bytes; nil where nobody wants that.
	scan    *scan
	trouble trouble
	// sent is how many bytes the newest attempt has given to the upstream.
	sent atomic.Int64
}

// trouble passes on what keeps a forward from getting on, to who comes to wait for it.
type trouble struct {
	mu   sync.Mutex // guards below; leaf lock
	last error
	tell func(error)
}

func (t *trouble) hear(err error) {
	t.mu.Lock()
	t.last = err
	tell := t.tell
	t.mu.Unlock()
	if tell != nil {
		tell(err)
	}
}

// listen has tell called with the last trouble and all that follows. Of several who listen the last one hears it.
func (t *trouble) listen(tell func(error)) {
	t.mu.Lock()
	t.tell = tell
	last := t.last
	t.mu.Unlock()
	if last != nil {
		tell(last)
	}
}

// errHeldBack is why a blob has not been sent: it waits for the verdict on its image.
var errHeldBack = errors.New("held back until the verdict")

func newForward() *forward {
	return &forward{cancel: func(error) {}, identified: make(chan struct{}), done: make(chan struct{})}
}

// identify tells the forward what its bytes turned out to be.
func (f *forward) identify(d digest.Digest) {
	f.once.Do(func() { f.digest = d; close(f.identified) })
}

// abort tells the forward that its bytes are worth nothing.
func (f *forward) abort(cause error) {
	f.once.Do(func() { f.refused = cause; close(f.identified) })
	f.cancel(cause)
}

// startForward begins to send a session's bytes to the upstream. size and announced
// are what the client said of them beforehand: -1 and "" for nothing.
func (m *Mirror) startForward(s *session, size int64, announced digest.Digest) {
	f := newForward()
	blob, up, repo := s.blob, s.up, s.repo
	s.forward = f
	gate := up.gate(repo)
	f.scan = m.startScan(gate, s, f, announced)
	if gate != nil && (gate.HoldUploads || gate.Pipeline.Scans() && f.scan == nil) { // nobody looks at it before its manifest
		f.err = errHeldBack
		close(f.done)
		return
	}
	cancel, started := m.tasks.StartCancellable(func(ctx context.Context) {
		defer close(f.done)
		if m.awaitMount(ctx, up, repo, announced, size) {
			if d, err := f.cleared(ctx, gate, repo); err != nil {
				f.err = err
				return
			} else if m.mountKnown(ctx, up, repo, d) {
				return
			}
		}
		f.err = up.Sink.PutBlob(ctx, up.remote(repo).With(upstream.Call{OnRetry: f.trouble.hear}), upstream.Upload{
			Open: counted(&f.sent, func() (io.ReadCloser, error) { return blob.Follow(), nil }),
			Size: size, Announced: announced,
			Digest: func() (digest.Digest, error) { return f.cleared(ctx, gate, repo) },
		})
		if f.err == nil {
			m.recorded(m.known.Add(ctx, up.Name, repo, meta.Holding{Digest: f.digest, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: blob.Size()}}))
		}
	})
	f.cancel = cancel
	if !started {
		f.err = flight.ErrStopped
		close(f.done)
	}
}

// sendHeld sends a blob from the local copy, without the client.
func (m *Mirror) sendHeld(ctx context.Context, how upstream.Call, up *Upstream, repo string, d digest.Digest, size int64) error {
	sent := new(atomic.Int64)
	if p := m.pins.get(pinKey{up.Name, repo, d}); p != nil {
		sent = &p.forward.sent
	}
	err := up.Sink.PutBlob(ctx, up.remote(repo).With(how), upstream.Upload{
		Open: counted(sent, func() (io.ReadCloser, error) {
			return m.cache.Open(ctx, cache.Blob{Digest: d, Size: size}, notHeld)
		}),
		Size: size, Announced: d,
		Digest: func() (digest.Digest, error) { return d, nil },
	})
	if err == nil {
		m.recorded(m.known.Add(ctx, up.Name, repo, meta.Holding{Digest: d, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: size}}))
	}
	return err
}

// notHeld is the origin of a blob that can only come from here.
func notHeld(context.Context, int64) (cache.Stream, error) {
	return cache.Stream{}, oci.ErrBlobUnknown.With("the blob is no longer held here, push it again")
}

// pinKey names a blob that a push brought to a repository.
type pinKey struct {
	upstream, repo string
	digest         digest.Digest
}

// pin holds a blob in the cache until the manifest that it was pushed for has
// landed.
type pin struct {
	size    int64
	owner   string // whose share it counts in
	forward *forward
	// blob keeps the bytes from being evicted until it is closed.
	blob  keeper
	since time.Time
	// entrusted says that the queue keeps the blob, too. It is guarded by pins.mu while the pin is in the map.
	entrusted bool
}

// keeper keeps a blob of a push: a *cache.Upload, or a *cache.KeptBlob of a former process.
type keeper interface {
	Close() error
	// Suspend leaves the keeping to the next process.
	Suspend() error
}

// pins are the blobs of pushes whose manifest has not landed yet.
type pins struct {
	expiry time.Duration
	shares *shares
	mu     sync.Mutex // guards the map; blobs are closed outside
	m      map[pinKey]*pin
}

func newPins(expiry time.Duration, shares *shares) *pins {
	return &pins{expiry: expiry, shares: shares, m: map[pinKey]*pin{}}
}

func (p *pins) get(k pinKey) *pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[k]
}

func (p *pins) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.m)
}

// set pins a blob, whose bytes its owner's share has counted; a former pin of the same blob goes.
func (p *pins) set(k pinKey, v *pin) {
	if v.since.IsZero() {
		v.since = time.Now()
	}
	p.mu.Lock()
	old := p.m[k]
	p.m[k] = v
	p.mu.Unlock()
	if old != nil {
		p.release(old)
	}
}

// release ends a pin that is in the map no more.
func (p *pins) release(v *pin) {
	_ = v.blob.Close()
	if !v.entrusted {
		p.shares.refund(v.owner, v.size)
	}
}

// entrust says that somebody else keeps these blobs from now on: they count in nobody's share any more.
func (p *pins) entrust(keys ...pinKey) {
	p.mu.Lock()
	var over []pin
	for _, k := range keys {
		if v := p.m[k]; v != nil && !v.entrusted {
			v.entrusted = true
			over = append(over, *v)
		}
	}
	p.mu.Unlock()
	for _, v := range over {
		p.shares.refund(v.owner, v.size)
	}
}

// drop releases the blobs of a push that has landed.
func (p *pins) drop(keys ...pinKey) {
	gone := make(map[pinKey]bool, len(keys))
	for _, k := range keys {
		gone[k] = true
	}
	p.dropIf(p.release, func(k pinKey, _ *pin) bool { return gone[k] })
}

func (p *pins) expire(now time.Time) {
	p.dropIf(p.release, func(_ pinKey, v *pin) bool { return now.Sub(v.since) >= p.expiry })
}

// renew gives pins their whole time again: a manifest that needs them is on its way.
func (p *pins) renew(keys ...pinKey) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if v := p.m[k]; v != nil {
			v.since = now
		}
	}
}

// suspendAll leaves every pin to the next process.
func (p *pins) suspendAll() {
	p.dropIf(func(v *pin) { _ = v.blob.Suspend() }, func(pinKey, *pin) bool { return true })
}

func (p *pins) dropIf(release func(*pin), gone func(pinKey, *pin) bool) {
	var drop []*pin
	p.mu.Lock()
	for k, v := range p.m {
		if gone(k, v) {
			drop = append(drop, v)
			delete(p.m, k)
		}
	}
	p.mu.Unlock()
	for _, v := range drop {
		release(v)
	}
}

// wait returns when the upstream has the pinned blob, sending it again from the
// local copy where the first way failed.
func (m *Mirror) wait(ctx context.Context, how upstream.Call, up *Upstream, repo string, d digest.Digest, p *pin) error {
	if how.OnRetry != nil {
		p.forward.trouble.listen(how.OnRetry)
	}
	select {
	case <-p.forward.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.forward.err == nil {
		return nil
	}
	if _, err := m.known.Get(ctx, up.Name, repo, d); err == nil {
		return nil // an earlier try has sent it
	}
	// Also after a refusal: what was forbidden when the layer came may be allowed by
	// the time the client tries its manifest again.
	return m.supply(ctx, how, up, repo, d, p.size)
}

// isRefusal reports whether the upstream gave an answer that another try would get
// again.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e.Status >= 400 && e.Status < 500
}
