package mirror

import (
	"context"
	"errors"
	"sync"
	"time"

	"dray/cache"
	"dray/mirror/flight"
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

// suspend leaves what was received to the next process. It needs the turn.
func (s *session) suspend() {
	if s.ended {
		return
	}
	s.ended = true
	_ = s.blob.Suspend()
	if s.forward != nil {
		s.forward.abort(flight.ErrStopped)
	}
}

// receipt is kept with the bytes of an upload, so that a later process can go on with it.
type receipt struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	User       string `json:"user,omitempty"`
	Owner      string `json:"owner"`
}

// uploads are the open sessions. Their bytes and receipts lie in the cache, where the next process finds them.
type uploads struct {
	expiry time.Duration
	shares *shares
	mu     sync.Mutex // guards what follows; never held during I/O
	byID   map[string]*session
}

func newUploads(expiry time.Duration, shares *shares) *uploads {
	return &uploads{expiry: expiry, shares: shares, byID: map[string]*session{}}
}

func (u *uploads) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byID)
}

// add opens a session around blob. Its owner's share has counted it.
func (u *uploads) add(id string, up *Upstream, r receipt, blob *cache.Upload, touched time.Time) *session {
	s := &session{id: id, up: up, repo: r.Repository, user: r.User, owner: r.Owner, blob: blob, turn: make(chan struct{}, 1), touched: touched}
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

// drop aborts a session. It needs the turn.
func (u *uploads) drop(s *session, cause error) {
	size := s.blob.Size()
	s.abort(cause)
	if u.remove(s) {
		u.shares.refund(s.owner, size)
	}
}

// remove forgets a session that has ended, and says whether it was there.
func (u *uploads) remove(s *session) bool {
	u.mu.Lock()
	_, there := u.byID[s.id]
	delete(u.byID, s.id)
	u.mu.Unlock()
	if there {
		u.shares.end(s.owner)
	}
	return there
}

// discard ends a session whose id nobody was told.
func (u *uploads) discard(s *session, cause error) {
	<-s.turn
	u.drop(s, cause)
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
			u.drop(s, errExpired)
		}
		s.turn <- struct{}{}
	}
}

// suspendAll leaves every session to the next process, waiting for requests in progress:
// their bodies end with the listeners.
func (u *uploads) suspendAll() {
	for _, s := range u.all() {
		<-s.turn
		s.suspend()
		u.remove(s)
		s.turn <- struct{}{}
	}
}
