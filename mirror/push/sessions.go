package push

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"dray/cache"
	"dray/mirror/flight"
	"dray/mirror/repository"
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
	repo repository.Repo
	// user is who it belongs to; "" is anybody who knows the id, as the address of a
	// client may change on its way through proxies. owner is who it counts for.
	user, owner string
	// mu holds one token; whoever has it may use what follows.
	mu      chan struct{}
	blob    *cache.Upload
	forward *forward
	touched time.Time
	ended   bool
}

// acquireWithin bounds how long a request waits for another one on the same upload: a
// client that reconnects meets its own dying request.
const acquireWithin = 10 * time.Second

// acquire waits until no other request uses the session.
func (s *session) acquire(ctx context.Context) error {
	late := time.NewTimer(acquireWithin)
	defer late.Stop()
	select {
	case <-s.mu:
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
	s.mu <- struct{}{}
}

// abort drops what was received. It needs the token.
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

// suspend leaves what was received to the next process. It needs the token.
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

// sessions are the open uploads. Their bytes and receipts lie in the cache, where the next process
// finds them.
type sessions struct {
	expiry time.Duration
	quotas *Quotas
	mu     sync.Mutex // guards what follows; never held during I/O
	byID   map[string]*session
}

func newSessions(expiry time.Duration, quotas *Quotas) *sessions {
	return &sessions{expiry: expiry, quotas: quotas, byID: map[string]*session{}}
}

func (u *sessions) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byID)
}

// add opens a session around blob, which counts against its owner's quota already.
func (u *sessions) add(id string, repo repository.Repo, r receipt, blob *cache.Upload, touched time.Time) *session {
	s := &session{id: id, repo: repo, user: r.User, owner: r.Owner, blob: blob, mu: make(chan struct{}, 1), touched: touched}
	s.mu <- struct{}{}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.byID[s.id] = s
	return s
}

// take finds a session and acquires it. An id is good only for the
// repository and the client that it was issued to.
func (u *sessions) take(ctx context.Context, id string, repo repository.Repo, user string) (*session, error) {
	u.mu.Lock()
	s := u.byID[id]
	u.mu.Unlock()
	if s == nil || s.repo != repo || s.user != user {
		return nil, oci.ErrBlobUploadUnknown.With("unknown upload %q", id)
	}
	return s, s.acquire(ctx)
}

// drop aborts a session. It needs the token.
func (u *sessions) drop(s *session, cause error) {
	size := s.blob.Size()
	s.abort(cause)
	if u.remove(s) {
		u.quotas.Refund(s.owner, size)
	}
}

// remove forgets a session that has ended, and says whether it was there.
func (u *sessions) remove(s *session) bool {
	u.mu.Lock()
	_, there := u.byID[s.id]
	delete(u.byID, s.id)
	u.mu.Unlock()
	if there {
		u.quotas.end(s.owner)
	}
	return there
}

// discard ends a session whose id nobody was told.
func (u *sessions) discard(s *session, cause error) {
	<-s.mu
	u.drop(s, cause)
	s.release()
}

func (u *sessions) all() []*session {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Values(u.byID))
}

// expire aborts the sessions that nobody used for the expiry. One in use has moved.
func (u *sessions) expire(now time.Time) {
	for _, s := range u.all() {
		select {
		case <-s.mu:
		default:
			continue
		}
		if now.Sub(s.touched) >= u.expiry {
			u.drop(s, errExpired)
		}
		s.mu <- struct{}{}
	}
}

// suspendAll leaves every session to the next process, waiting for requests in progress:
// their bodies end with the listeners.
func (u *sessions) suspendAll() {
	for _, s := range u.all() {
		<-s.mu
		s.suspend()
		u.remove(s)
		s.mu <- struct{}{}
	}
}
