package mirror

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"dray/cache"
	"dray/upstream/oci"
)

// errExpired ends an upload that its client left alone.
var errExpired = errors.New("upload expired")

// errCancelled ends an upload that its client gave up.
var errCancelled = errors.New("upload cancelled")

// session is one upload of a client: local bytes that grow, and their way to the
// upstream.
type session struct {
	id   string
	up   *Upstream
	repo string
	// user is who it belongs to; "" is anybody who knows the id, as the address of a
	// client may change on its way through proxies. owner is who it counts for.
	user, owner string
	// turn holds one token; whoever has it may use what follows.
	turn    chan struct{}
	blob    *cache.Upload
	forward *forward
	touched time.Time
	ended   bool
}

// turnWithin bounds how long a request waits for another one on the same upload: a
// client that reconnects meets its own dying request.
const turnWithin = 10 * time.Second

// acquire waits for the session's turn.
func (s *session) acquire(ctx context.Context) error {
	late := time.NewTimer(turnWithin)
	defer late.Stop()
	select {
	case <-s.turn:
	case <-late.C:
		return oci.ErrBlobUploadInvalid.With("another request is using this upload")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.ended {
		s.release()
		return oci.ErrBlobUploadUnknown.With("unknown upload %q", s.id)
	}
	return nil
}

func (s *session) release() {
	s.touched = time.Now()
	s.turn <- struct{}{}
}

// abort drops what was received. It needs the turn.
func (s *session) abort(cause error) {
	if s.ended {
		return
	}
	s.ended = true
	s.blob.Abort(cause)
	_ = s.blob.Close()
	if s.forward != nil {
		s.forward.abort(cause)
	}
}

// uploads are the open sessions. They live in this process: a client whose session
// is gone starts again, as the protocol provides for.
type uploads struct {
	expiry time.Duration
	most   int
	mu     sync.Mutex // guards what follows; never held during I/O
	byID   map[string]*session
	open   map[string]int
}

func newUploads(expiry time.Duration, most int) *uploads {
	return &uploads{expiry: expiry, most: most, byID: map[string]*session{}, open: map[string]int{}}
}

func (u *uploads) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byID)
}

// reserve takes one of the client's places. Each has to be given back.
func (u *uploads) reserve(owner string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.most > 0 && u.open[owner] >= u.most {
		return oci.ErrTooManyRequests.With("this client has %d uploads open, which is the limit", u.most)
	}
	u.open[owner]++
	return nil
}

func (u *uploads) giveBack(owner string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open[owner]--; u.open[owner] <= 0 {
		delete(u.open, owner)
	}
}

// add opens a session around blob, for a place that was reserved.
func (u *uploads) add(up *Upstream, repo, user, owner string, blob *cache.Upload) *session {
	s := &session{id: rand.Text(), up: up, repo: repo, user: user, owner: owner, blob: blob, turn: make(chan struct{}, 1), touched: time.Now()}
	s.turn <- struct{}{}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.byID[s.id] = s
	return s
}

// take finds a session and waits for its turn. An id is good only for the
// repository and the client that it was issued to.
func (u *uploads) take(ctx context.Context, id string, up *Upstream, repo, user string) (*session, error) {
	u.mu.Lock()
	s := u.byID[id]
	u.mu.Unlock()
	if s == nil || s.up != up || s.repo != repo || s.user != user {
		return nil, oci.ErrBlobUploadUnknown.With("unknown upload %q", id)
	}
	return s, s.acquire(ctx)
}

// remove forgets a session that has ended.
func (u *uploads) remove(s *session) {
	u.mu.Lock()
	_, there := u.byID[s.id]
	delete(u.byID, s.id)
	u.mu.Unlock()
	if there {
		u.giveBack(s.owner)
	}
}

// discard ends a session whose id nobody was told.
func (u *uploads) discard(s *session, cause error) {
	<-s.turn
	s.abort(cause)
	u.remove(s)
	s.release()
}

func (u *uploads) all() []*session {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]*session, 0, len(u.byID))
	for _, s := range u.byID {
		out = append(out, s)
	}
	return out
}

// expire aborts the sessions that nobody used for the expiry. One in use has moved.
func (u *uploads) expire(now time.Time) {
	for _, s := range u.all() {
		select {
		case <-s.turn:
		default:
			continue
		}
		if now.Sub(s.touched) >= u.expiry {
			s.abort(errExpired)
			u.remove(s)
		}
		s.turn <- struct{}{}
	}
}

// abortAll ends every session, waiting for requests in progress: their bodies end
// with the listeners.
func (u *uploads) abortAll(cause error) {
	for _, s := range u.all() {
		<-s.turn
		s.abort(cause)
		u.remove(s)
		s.turn <- struct{}{}
	}
}
