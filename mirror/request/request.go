package request

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/identity"
	"dray/mirror/live"
	"dray/mirror/notify"
	"dray/mirror/past"
	"dray/mirror/repository"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// Listener is the part of a listener that its requests need.
type Listener struct {
	Name   string
	Routes *route.Table
	// Policy decides which requests clients may make.
	Policy identity.Policy
	// ExternalURL is the address by which clients reach the listener, without a path. If it is empty,
	// the addresses in messages and events have the Host of the request, and the addresses in Location
	// headers are paths.
	ExternalURL string
	// AnswerWithin bounds the time until the answer to the push of a manifest; 0 means 10 minutes.
	// containerd gets its answer within 25 s in any case, because containerd waits at most 30 s.
	AnswerWithin time.Duration
}

// TakesPushes reports whether clients may push through the listener, if they have the rights.
func (l *Listener) TakesPushes() bool { return l.Policy.Role == identity.RoleRegistry }

// Meaning is the result of parsing and routing a request.
type Meaning struct {
	// Q is the parsed request.
	Q oci.Request
	// Target names the repository in the listener's routes, and Repo is the repository. Until the
	// request is routed, Repo.Up is nil.
	Target route.Target
	Repo   repository.Repo
}

// Request is one request under way.
type Request struct {
	W        wire.Response
	R        *http.Request
	Listener *Listener
	Meaning
	Caller identity.Principal
	// Needs are the rights that the request needs, and that the caller has.
	Needs []identity.Need
	// Vouched is the caller of a request that another member of the fleet has passed on; nil for a
	// request that came from the client itself.
	Vouched *identity.Vouched
	// Worker is the ID of the member of the fleet that has worked on the request, for the log; "" if
	// this member has worked on it.
	Worker string
	// ID identifies the request in the answer (X-Request-Id), in the log and in events. It is the
	// X-Request-Id that the client or a proxy sent, if isID accepts it. Otherwise the ID is random.
	ID string
	// Source says where the bytes of the answer came from, for the log and metrics.
	Source string
	// Instead is the repository that the client asked for, if a fallback answers from Repo. If no
	// fallback answers, Instead.Up is nil.
	Instead repository.Repo
	// Ahead says that dray had begun to fetch the bytes of the answer before the client asked for
	// them.
	Ahead bool
	// Live counts the request towards the pull or the push that it belongs to.
	Live live.Track
	// Stale is the error of the upstream if an old answer was sent because of that error; nil
	// otherwise.
	Stale error
	// Miss says why a pull needs more than the cache; nil if the cache is enough, or if the reason is
	// not known.
	Miss *past.Miss

	repos *repository.Store
	// digest and size describe the whole content of the answer, even if only a range was requested.
	// size is in bytes, and negative if unknown.
	digest digest.Digest
	size   int64
	wait   wait
}

// New returns a request that came through a listener. The caller must close it.
func New(l *Listener, repos *repository.Store, w http.ResponseWriter, r *http.Request, o wire.Options) *Request {
	x := &Request{W: wire.NewResponse(w, r, o), R: r, Listener: l, repos: repos}
	if sent := r.Header["X-Request-Id"]; len(sent) == 1 && isID(sent[0]) {
		x.ID = sent[0]
		w.Header()["X-Request-Id"] = sent
		return x
	}
	x.ID = rand.Text()
	w.Header()["X-Request-Id"] = []string{x.ID}
	return x
}

// isID reports whether a text may be the ID of a request: up to 128 letters, digits and signs that
// need no quotes in a log.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.:/+@", c) >= 0) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 128
}

// WithTimeout returns the context in which a handler works on the answer. It is called at most once
// for each request. If the handler has not called StopTimeout when the time bound has passed, the
// context ends with errTimeout. The bound applies until the header is sent: clients wait at most
// 30 s for a header, but have no limit for a body. The context also ends with the request, so no
// handler has to release it.
func (x *Request) WithTimeout(bound time.Duration) context.Context {
	x.wait.Context, x.wait.until = x.R.Context(), time.Now().Add(bound)
	return &x.wait
}

// StopTimeout lifts the bound of WithTimeout. Handlers call it when the header is about to be sent.
func (x *Request) StopTimeout() { x.wait.lift() }

// Close releases the timer and the context of the request.
func (x *Request) Close() { x.wait.end() }

// Route parses the request and finds its upstream and repository.
func (x *Request) Route() (err error) {
	if x.Q, err = oci.Parse(x.R); err != nil {
		return err
	}
	if x.Target, err = x.Listener.Routes.Match(x.R.Host, x.Q); err != nil {
		return err
	}
	x.Repo, err = x.repo(x.Target)
	return err
}

func (x *Request) repo(t route.Target) (repository.Repo, error) {
	up := x.repos.Upstream(t.Upstream)
	if up == nil {
		return repository.Repo{}, oci.ErrNameUnknown.With("the upstream %q is not configured", t.Upstream)
	}
	return x.repos.Repo(up, t.Repo), nil
}

// Divert sets Repo to the repository in which the build caches of Repo are stored, if the requested
// content is there.
func (x *Request) Divert() {
	if to, ok := x.Repo.Stored(x.R.Context(), x.Q); ok {
		x.Repo, x.Target.Upstream, x.Target.Repo = to, to.Up.Name, to.Name
	}
}

// Turn sets the repository that answers the request: a repository at a fallback, or the repository
// that the client named. The rights of the client stay the same.
func (x *Request) Turn(to repository.Repo) {
	named := x.Repo
	if x.Instead.Up != nil {
		named = x.Instead
	}
	if x.Instead = (repository.Repo{}); !repository.Same(to, named) {
		x.Instead = named
	}
	x.Repo, x.Target.Upstream, x.Target.Repo = to, to.Up.Name, to.Name
}

// Need returns the purpose of a pull. On a listener that takes pushes, clients also see the content
// of pushes under way.
func (x *Request) Need() repository.Need {
	if x.Listener.TakesPushes() {
		return repository.ServePusher
	}
	return repository.Serve
}

// AsksToPush reports whether the request could be a check for content that a push can leave out. It
// returns true for a HEAD if the listener and the upstream take pushes.
func (x *Request) AsksToPush() bool {
	return x.R.Method == http.MethodHead && x.Repo.Up.Sink != nil && x.Listener.TakesPushes()
}

// HeadNeed returns the purpose of a HEAD or a mount. With these requests, a client finds out which
// content it may leave out of a push.
func (x *Request) HeadNeed() repository.Need {
	switch {
	case x.Repo.Up.Sink == nil || !x.Listener.TakesPushes():
		return repository.ServeHere
	case x.Repo.Up.AcknowledgeLocally:
		return repository.LeaveToQueue
	}
	return repository.LeaveOut
}

// MountSource returns the repository that a mount names as its source. The Target has the name by
// which rights refer to that repository.
func (x *Request) MountSource() (repository.Repo, route.Target, error) {
	q := x.Q
	q.Repo = q.From
	t, err := x.Listener.Routes.Match(x.R.Host, q)
	if err != nil {
		return repository.Repo{}, t, err
	}
	r, err := x.repo(t)
	return r, t, err
}

// MayPull reports whether the client may read a repository, which may differ from the repository of
// the request. It reports false if the listener has no name for the repository.
func (x *Request) MayPull(r repository.Repo) bool {
	t, ok := x.Listener.Routes.At(r.Up.Name, r.Name)
	if !ok {
		return false
	}
	_, err := x.Authorise(identity.Need{Action: identity.Pull, Repository: t.Name})
	return err == nil
}

// Authorise returns the caller, or an error if the caller lacks one of the rights: see
// [identity.Policy.Authorise]. If another member of the fleet has passed the request on, that
// member says who the caller is.
func (x *Request) Authorise(needs ...identity.Need) (identity.Principal, error) {
	if x.Vouched != nil {
		return x.Listener.Policy.Confirm(x.R, *x.Vouched, needs...)
	}
	return x.Listener.Policy.Authorise(x.R, needs...)
}

// May reports whether the client may perform an action on the repository. If so, it adds the right
// to the Needs.
func (x *Request) May(action identity.Action) bool {
	need := identity.Need{Action: action, Repository: x.Target.Name}
	_, err := x.Authorise(need)
	if err == nil && !slices.Contains(x.Needs, need) {
		x.Needs = append(x.Needs, need)
	}
	return err == nil
}

// Owner returns the client whose quota an upload counts against.
func (x *Request) Owner() string {
	if x.Caller.Name != "" {
		return "user " + x.Caller.Name
	}
	return "address " + identity.ClientAddr(x.R).String()
}

// Base returns the address of the listener for the client.
func (x *Request) Base() string {
	switch {
	case x.Listener.ExternalURL != "":
		return x.Listener.ExternalURL
	case x.R.TLS != nil:
		return "https://" + x.R.Host
	}
	return "http://" + x.R.Host
}

// ReportURL returns the address of a report for the client, or "" if id is empty.
func (x *Request) ReportURL(id string) string {
	if id == "" {
		return ""
	}
	return x.Base() + notify.ReportPath + id
}

// Cause describes the request as the cause of an event.
func (x *Request) Cause() notify.Cause {
	return notify.Cause{
		Request: notify.Request{ID: x.ID, Addr: x.R.RemoteAddr, Host: x.R.Host, Method: x.R.Method, UserAgent: x.R.UserAgent()},
		Base:    x.Base(), Query: x.Q,
	}
}
