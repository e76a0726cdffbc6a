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

var errExpired = errors.New("upload expired")

var errGaveWay = errors.New("upload given up for another one of its client")

var errCancelled = errors.New("upload cancelled")

// session is one upload of a client: the bytes received so far, and their forward to the upstream.
type session struct {
	id   string
	repo repository.Repo
	// user is the only user who may use the session. If it is "", the session is for any client that
	// has no user name and knows the id. Addresses are not compared, because the address of a client
	// may change behind proxies. owner is the client whose quota the session counts against.
	user, owner string
	// mu holds one token. A goroutine that has taken the token may use the fields below.
	mu       chan struct{}
	blob     *cache.Upload
	forward  *forward
	lastUsed time.Time
	// broken is set if the last body that the session received broke off.
	broken bool
	ended  bool
}

// acquireWithin bounds the time that a request waits for another request on the same upload. A
// client that reconnects may have to wait, because dray may still be reading the request that broke
// off.
const acquireWithin = 10 * time.Second

// acquire waits until no other request uses the session. If it returns no error, the caller has the
// token.
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
	s.lastUsed = time.Now()
	s.mu <- struct{}{}
}

// abort drops the bytes received. The caller has the token.
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

// suspend leaves the received bytes to the next process. The caller has the token.
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

// receipt is stored with the bytes of an upload, so that a later process can continue it.
type receipt struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	User       string `json:"user,omitempty"`
	Owner      string `json:"owner"`
	// Waiting is set if the bytes are those of a waiting manifest.
	Waiting *waitingReceipt `json:"waiting,omitempty"`
}

// waitingReceipt has the data about a waiting manifest that the next process needs in addition to
// the manifest's bytes.
type waitingReceipt struct {
	MediaType string    `json:"mediaType"`
	Until     time.Time `json:"until"`
}

// sessions is the table of open uploads. Their bytes and receipts are in the cache, where the next
// process finds them.
type sessions struct {
	expiry time.Duration
	quotas *Quotas
	mu     sync.Mutex // guards byID; never held during I/O
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

// add opens a session for an upload, the parameter blob. The quota of the owner already counts this
// upload.
func (u *sessions) add(id string, repo repository.Repo, r receipt, blob *cache.Upload, lastUsed time.Time) *session {
	s := &session{id: id, repo: repo, user: r.User, owner: r.Owner, blob: blob, mu: make(chan struct{}, 1), lastUsed: lastUsed}
	s.mu <- struct{}{}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.byID[s.id] = s
	return s
}

// take finds a session and acquires it. An id is valid only for the repository and the user that it
// was issued for.
func (u *sessions) take(ctx context.Context, id string, repo repository.Repo, user string) (*session, error) {
	u.mu.Lock()
	s := u.byID[id]
	u.mu.Unlock()
	if s == nil || !repository.Same(s.repo, repo) || s.user != user {
		return nil, oci.ErrBlobUploadUnknown.With("unknown upload %q", id)
	}
	return s, s.acquire(ctx)
}

// drop aborts and removes a session. The caller has the token.
func (u *sessions) drop(s *session, cause error) {
	size := s.blob.Size()
	s.abort(cause)
	if u.remove(s) {
		u.quotas.Refund(s.owner, size)
	}
}

// remove removes a session that has ended, and reports whether it was in the table.
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

// discard drops a session whose id was not sent to the client.
func (u *sessions) discard(s *session, cause error) {
	<-s.mu
	u.drop(s, cause)
	s.release()
}

// betweenRequests bounds the time between two requests of an upload. After a longer time without a
// request, giveUp counts the upload as abandoned. The bound is this high because a busy client can
// need many seconds for the next request.
const betweenRequests = time.Minute

// withRoom calls the function reserve, which counts one more upload or more bytes towards the quota
// of a client, or only checks whether the quota allows them. While reserve returns the error that
// the client has too many uploads or bytes, withRoom drops an upload that the client has abandoned,
// and calls reserve again.
func (u *sessions) withRoom(owner string, reserve func() error) error {
	for {
		err := reserve()
		if !errors.Is(err, oci.ErrTooManyRequests) || !u.giveUp(owner, time.Now()) {
			return err
		}
	}
}

// giveUp drops the upload that a client abandoned first, and reports whether there was one. An
// upload is abandoned if no request uses it and one of two conditions is true: its last body broke
// off, or its last request ended at least betweenRequests ago.
func (u *sessions) giveUp(owner string, now time.Time) bool {
	var oldest *session
	for _, s := range u.all() {
		if s.owner != owner {
			continue
		}
		select {
		case <-s.mu:
		default:
			continue // a request uses it
		}
		left := !s.ended && (s.broken || now.Sub(s.lastUsed) >= betweenRequests)
		if left && (oldest == nil || s.lastUsed.Before(oldest.lastUsed)) {
			s, oldest = oldest, s
		}
		if s != nil {
			s.mu <- struct{}{}
		}
	}
	if oldest == nil {
		return false
	}
	u.drop(oldest, errGaveWay)
	oldest.mu <- struct{}{}
	return true
}

func (u *sessions) all() []*session {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Values(u.byID))
}

// expire drops the sessions that no request has used for the time u.expiry. It returns the sessions
// that a request is using.
func (u *sessions) expire(now time.Time) (inUse []*session) {
	for _, s := range u.all() {
		select {
		case <-s.mu:
		default:
			inUse = append(inUse, s)
			continue
		}
		if now.Sub(s.lastUsed) >= u.expiry {
			u.drop(s, errExpired)
		}
		s.mu <- struct{}{}
	}
	return inUse
}

// suspendAll waits for the requests that use the sessions. Their bodies end when the listeners are
// closed. Then suspendAll leaves every session to the next process.
func (u *sessions) suspendAll() {
	for _, s := range u.all() {
		<-s.mu
		s.suspend()
		u.remove(s)
		s.mu <- struct{}{}
	}
}
