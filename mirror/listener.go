package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"dray/mirror/identity"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// Listener is the http.Handler of one listener.
type Listener struct {
	Mirror *Mirror
	Name   string
	Policy identity.Policy
	Routes *route.Table
	// ExternalURL is how clients reach the listener, without a path; empty: as their requests say.
	ExternalURL string
	// CopyFiles sends files by copying them through this process, and not by sendfile.
	CopyFiles bool
	// AccessLog gets a line for each request; nil: none does. Those of pushes, and of what went wrong here, go the way of
	// all that the Mirror logs, since this one may be late.
	AccessLog slog.Handler
}

// exchange is one request on its way: what was asked, by whom, and what became of
// it.
type exchange struct {
	w        wire.Response
	r        *http.Request
	listener *Listener
	q        oci.Request
	target   route.Target
	up       *Upstream
	caller   identity.Principal
	// source says where the bytes of the answer came from.
	source string
	// digest is that of the content of the answer, and size its whole length in bytes, whatever part
	// of it was asked for; below zero: not known.
	digest digest.Digest
	size   int64
	// stale is why an old answer was good enough.
	stale error
	// asked is the request as a key of hot answers, and hit the one that it found.
	asked asked
	hit   *hit
	// late ends what comes before the answer, by end, when that takes too long; nil: nothing is
	// bounded.
	late *time.Timer
	end  context.CancelCauseFunc
}

// errSlow ends what takes too long before an answer has begun.
var errSlow = func() error {
	e := oci.ErrUnavailable.With("the upstream registry did not answer in time")
	e.Status = http.StatusGatewayTimeout
	return e
}()

// hurry gives the context of what comes before the answer, once for each exchange. It ends with
// errSlow after bound, unless relax is called before: clients wait 30 s for a header, and as long
// as it takes for a body. It ends with the exchange, so that no handler has anything to release.
func (x *exchange) hurry(bound time.Duration) context.Context {
	ctx, end := context.WithCancelCause(x.r.Context())
	x.late, x.end = time.AfterFunc(bound, func() { end(errSlow) }), end
	return ctx
}

// relax lifts the bound of hurry.
func (x *exchange) relax() { x.late.Stop() }

// close releases what the exchange holds.
func (x *exchange) close() {
	if x.late != nil {
		x.late.Stop()
		x.end(nil)
	}
}

type handler func(*Mirror, *exchange) error

// handlers has every request that the protocol knows and dray serves.
var handlers = map[oci.Kind]map[string]handler{
	oci.KindBase:      {"GET": (*Mirror).base, "HEAD": (*Mirror).base},
	oci.KindManifest:  {"GET": (*Mirror).getManifest, "HEAD": (*Mirror).getManifest, "PUT": (*Mirror).putManifest, "DELETE": (*Mirror).deleteManifest},
	oci.KindBlob:      {"GET": (*Mirror).getBlob, "HEAD": (*Mirror).headBlob, "DELETE": (*Mirror).deleteBlob},
	oci.KindTags:      {"GET": (*Mirror).listTags, "HEAD": (*Mirror).listTags},
	oci.KindReferrers: {"GET": (*Mirror).listReferrers, "HEAD": (*Mirror).listReferrers},
	oci.KindUploads:   {"POST": (*Mirror).startUpload},
	oci.KindUpload:    {"GET": (*Mirror).uploadStatus, "PATCH": (*Mirror).patchUpload, "PUT": (*Mirror).closeUpload, "DELETE": (*Mirror).cancelUpload},
}

// ServeHTTP implements http.Handler.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	x := &exchange{w: wire.NewResponse(w, r, wire.Options{Stall: l.Mirror.stall, CopyFiles: l.CopyFiles}), r: r, listener: l}
	defer x.close()
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersion
	h["X-Content-Type-Options"] = noSniff
	err := l.guarded(x)
	if err != nil && !x.w.Started() {
		err = x.fail(err)
	}
	l.account(x, err, start)
	if err != nil && x.w.Broken() {
		// Part of a body is out: only a cut connection tells the client that the rest is
		// missing, whatever the protocol version and framing.
		panic(http.ErrAbortHandler)
	}
}

// Header values that all answers share.
var (
	apiVersion = []string{"registry/2.0"}
	noSniff    = []string{"nosniff"}
)

// guarded makes a panic an error like others: counted, logged once, and a 500.
func (l *Listener) guarded(x *exchange) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if x.w.Started() {
				x.w.Break()
			}
			err = fmt.Errorf("panic: %v", v)
			l.Mirror.log.Error("panic", "value", v, "stack", string(debug.Stack()))
		}
	}()
	return l.serve(x)
}

func (l *Listener) serve(x *exchange) (err error) {
	if x.asked = askedFor(l, x.r); x.asked.uri != "" {
		if k := l.Mirror.hot.find(x.asked); k != nil {
			x.q, x.target, x.up = k.q, k.target, k.up
			if err := x.authorise(); err != nil {
				return err
			}
			if k.valid(time.Now()) {
				x.hit = k
			}
			return l.Mirror.getManifest(x)
		}
	}
	if id, ok := strings.CutPrefix(x.r.URL.Path, reportPath); ok {
		return l.Mirror.sendReport(x, id)
	}
	if x.q, err = oci.Parse(x.r); err != nil {
		return err
	}
	if x.target, err = l.Routes.Match(x.r.Host, x.q); err != nil {
		return err
	}
	if x.up = l.Mirror.upstreams[x.target.Upstream]; x.up == nil {
		return oci.ErrNameUnknown.With("the upstream %q is not configured", x.target.Upstream)
	}
	h := handlers[x.q.Kind][x.q.Method]
	if h == nil {
		return oci.ErrUnsupported.With("%s of the %s resource is not supported", x.q.Method, x.q.Kind)
	}
	if err := x.authorise(); err != nil {
		return err
	}
	if x.q.Write() && x.up.Sink == nil {
		return oci.ErrDenied.With("%s takes no pushes through this mirror", x.up.Registry)
	}
	if x.q.Write() && !x.q.Deletes() {
		if err := l.Mirror.notInstead(x.up, x.target.Repo); err != nil {
			return err
		}
	}
	return h(l.Mirror, x)
}

// authorise asks for what the request needs.
func (x *exchange) authorise() (err error) {
	policy := &x.listener.Policy
	if x.q.Kind == oci.KindBase {
		x.caller, err = policy.Login(x.r)
		return err
	}
	needs := []identity.Need{{Action: identity.Pull, Repository: x.target.Name}}
	switch {
	case x.q.Deletes():
		needs[0].Action = identity.Delete
	case x.q.Write():
		needs[0].Action = identity.Push
	}
	if x.q.From != "" {
		from, err := x.mountSource()
		if err != nil {
			return err
		}
		needs = append(needs, identity.Need{Action: identity.Pull, Repository: from.Name})
	}
	x.caller, err = policy.Authorise(x.r, needs...)
	return err
}

// mountSource routes the repository that a mount names as its source.
func (x *exchange) mountSource() (route.Target, error) {
	q := x.q
	q.Repo = q.From
	return x.listener.Routes.Match(x.r.Host, q)
}

// fail puts an error on the wire. What is only the echo of a client that left is
// logged alone; a verdict is sent all the same, as one who has merely stopped
// sending looks alike.
func (x *exchange) fail(err error) error {
	if x.r.Context().Err() != nil {
		err = errors.Join(errClientLeft, err)
		if _, verdict := errors.AsType[*oci.Error](err); !verdict {
			x.w.Break()
			return err
		}
	}
	for _, h := range contentHeaders {
		x.w.Header().Del(h)
	}
	oci.WriteError(&x.w, err)
	return err
}

// contentHeaders are the headers that describe content and must not describe an error.
var contentHeaders = []string{"Accept-Ranges", "Cache-Control", "Docker-Content-Digest", "Etag", "Warning", "X-Cache"}

var errClientLeft = errors.New("the client left")

func (m *Mirror) base(x *exchange) error {
	x.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	x.w.Header().Set("Content-Length", "2")
	_, err := io.WriteString(&x.w, "{}")
	return err
}

// account writes what became of a request, once.
func (l *Listener) account(x *exchange, err error, start time.Time) {
	took := time.Since(start)
	is := labels{listener: l.Name, kind: string(x.q.Kind), method: methodLabel(x.r.Method), source: x.source, status: x.w.Status()}
	if x.up != nil {
		is.upstream = x.up.Name
	}
	s := l.Mirror.metrics.of(is)
	s.requests.Inc()
	s.seconds.Observe(took.Seconds())
	if s.bytes != nil {
		s.bytes.Add(float64(x.w.Sent()))
	}
	if l.AccessLog == nil {
		return
	}
	log, level := l.AccessLog, slog.LevelInfo
	if err != nil && x.w.Status() >= 500 {
		level = slog.LevelWarn
	}
	if level != slog.LevelInfo || x.q.Write() {
		log = l.Mirror.log.Handler()
	}
	if ctx := x.r.Context(); log.Enabled(ctx, level) {
		line := slog.NewRecord(start.Add(took), level, "request", 0) // without the place in the program, which is always this one
		line.AddAttrs(l.attributes(x, err, took)...)
		_ = log.Handle(ctx, line) // as slog.Logger does
	}
}

// attributes of the one line a request gets. Nothing here holds a credential: the
// query is not logged, the user only by name.
func (l *Listener) attributes(x *exchange, err error, took time.Duration) []slog.Attr {
	a := append(make([]slog.Attr, 0, 16),
		slog.String("listener", l.Name), slog.String("client", x.r.RemoteAddr),
		slog.String("method", x.r.Method), slog.String("kind", string(x.q.Kind)),
		slog.Int("status", x.w.Status()), slog.Int64("bytes", x.w.Sent()), slog.Duration("took", took))
	optional := func(k, v string) {
		if v != "" {
			a = append(a, slog.String(k, v))
		}
	}
	optional("user", x.caller.Name)
	optional("upstream", x.target.Upstream)
	optional("repository", x.target.Repo)
	optional("reference", x.q.Ref.String())
	if x.digest != "" && !x.q.Ref.ByDigest() {
		optional("digest", x.digest.String())
	}
	if x.digest != "" && x.size >= 0 && x.size != x.w.Sent() {
		a = append(a, slog.Int64("size", x.size))
	}
	optional("upload", x.q.Upload)
	optional("source", x.source)
	optional("agent", x.r.UserAgent())
	if x.stale != nil {
		optional("stale", x.stale.Error())
	}
	if err != nil {
		optional("error", err.Error())
	}
	return a
}

// methodLabel keeps strangers from adding series.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return m
	}
	return "other"
}
