package mirror

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"dray/mirror/identity"
	"dray/mirror/notify"
	"dray/mirror/proxied"
	"dray/mirror/request"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// Listener is the http.Handler of one listener.
type Listener struct {
	request.Listener
	Mirror *Mirror
	// CopyFiles makes dray copy files through this process instead of calling sendfile.
	CopyFiles bool
	// AccessLog receives the log lines of most requests. The Mirror's logger receives the lines of
	// pushes and deletions, of errors with status 500 or above, and of errors that only the operator
	// can fix. If AccessLog is nil, no request is logged. AccessLog may buffer its lines.
	AccessLog slog.Handler
}

type handler func(*request.Request) error

// table returns the handlers of all requests that dray serves.
func (m *Mirror) table() map[oci.Kind]map[string]handler {
	return map[oci.Kind]map[string]handler{
		oci.KindBase:      {"GET": base, "HEAD": base},
		oci.KindManifest:  {"GET": m.pull.Manifest, "HEAD": m.pull.Manifest, "PUT": m.push.PutManifest, "DELETE": m.push.DeleteManifest},
		oci.KindBlob:      {"GET": m.pull.Blob, "HEAD": m.pull.HeadBlob, "DELETE": m.push.DeleteBlob},
		oci.KindTags:      {"GET": m.pull.Tags, "HEAD": m.pull.Tags},
		oci.KindReferrers: {"GET": m.pull.Referrers, "HEAD": m.pull.Referrers},
		oci.KindUploads:   {"POST": m.push.StartUpload},
		oci.KindUpload:    {"GET": m.push.UploadStatus, "PATCH": m.push.PatchUpload, "PUT": m.push.CloseUpload, "DELETE": m.push.CancelUpload},
	}
}

// ServeHTTP implements http.Handler.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	r, span := l.Mirror.begin(r)
	defer span.End()
	x := l.request(&l.Listener, w, r)
	defer x.Close()
	err := l.answer(x)
	l.account(x, err, start)
	describe(span, l.Name, x, err)
	l.cut(x, err)
}

// ServePassed answers a request that another member of the fleet has passed on. The other member
// counts and logs the request. ServePassed implements [writer.Receiver].
func (l *Listener) ServePassed(w http.ResponseWriter, r *http.Request, by identity.Vouched, external string) {
	r, span := l.Mirror.begin(r)
	defer span.End()
	as := l.Listener
	as.ExternalURL = external
	x := l.request(&as, w, r)
	defer x.Close()
	x.Vouched = &by
	err := l.answer(x)
	ended(x, err)
	describe(span, l.Name, x, err)
	l.cut(x, err)
}

func (l *Listener) request(as *request.Listener, w http.ResponseWriter, r *http.Request) *request.Request {
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersion
	h["X-Content-Type-Options"] = noSniff
	x := request.New(as, l.Mirror.repos, w, r, wire.Options{Stall: l.Mirror.stall, CopyFiles: l.CopyFiles})
	x.Live = l.Mirror.observers.Live.Track()
	return x
}

// answer sends the answer to a request. It returns the error for the log, or nil.
func (l *Listener) answer(x *request.Request) error {
	err := l.guarded(x)
	if err != nil && !x.W.Started() {
		err = x.Fail(err)
	}
	l.Mirror.pushes.observe(x, err)
	return err
}

// cut closes the connection if the client has received an incomplete answer. In some protocol
// versions and framings, nothing else shows the client that the answer is incomplete.
func (l *Listener) cut(x *request.Request, err error) {
	if err != nil && x.W.Broken() {
		panic(http.ErrAbortHandler)
	}
}

// Header values that all answers share.
var (
	apiVersion = []string{"registry/2.0"}
	noSniff    = []string{"nosniff"}
)

// guarded calls serve. If serve panics, guarded logs the panic with its stack, and returns an error
// that is then handled like any other.
func (l *Listener) guarded(x *request.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if x.W.Started() {
				x.W.Break()
			}
			err = fmt.Errorf("panic: %v", v)
			l.Mirror.log.Error("panic", "value", v, "stack", string(debug.Stack()))
		}
	}()
	return l.serve(x)
}

func (l *Listener) serve(x *request.Request) error {
	m := l.Mirror
	// In a fleet, dray repeats no hot answer of an upstream with AcknowledgeLocally: the repository's
	// writer may have acknowledged a newer push that it has not forwarded yet.
	if hit := m.pull.Hit(x); hit != nil && (m.writers == nil || !hit.Meaning.Repo.Up.AcknowledgeLocally) {
		x.Meaning = hit.Meaning
		if err := authorise(x); err != nil {
			return err
		}
		return m.pull.Again(x, hit)
	}
	if id, ok := strings.CutPrefix(x.R.URL.Path, notify.ReportPath); ok {
		return m.writers.Anywhere(x, func() error { return m.push.Report(x, id) })
	}
	if err := x.Route(); err != nil {
		return err
	}
	h := m.handlers[x.Q.Kind][x.Q.Method]
	if h == nil {
		return oci.ErrUnsupported.With("%s of the %s resource is not supported", x.Q.Method, x.Q.Kind)
	}
	if err := authorise(x); err != nil {
		return err
	}
	if x.Q.Write() && x.Repo.Up.Sink == nil {
		return oci.ErrDenied.With("this mirror does not accept pushes for %s", x.Repo.Up.Registry)
	}
	if x.Q.Write() {
		if err := m.checkDrift(x.Repo.Up.Name); err != nil {
			return err
		}
	}
	if x.Q.Write() && !x.Q.Deletes() {
		if err := x.Repo.CheckPush(); err != nil {
			return err
		}
	}
	return x.Explain(m.writers.Work(x, func() error {
		if x.Q.Write() && !x.Q.Deletes() {
			x.Pushes()
		}
		return h(x)
	}))
}

// checkDrift returns an error if other members of the fleet have a different upstream under the
// same name. Without this check, a push whose requests reach several members could end at several
// registries.
func (m *Mirror) checkDrift(upstream string) error {
	if m.differs == nil {
		return nil
	}
	members := m.differs(upstream)
	if len(members) == 0 {
		return nil
	}
	return oci.ErrUnavailable.With("pushes to %s are refused while members of the fleet differ: it is another registry, or has another repository_prefix or user, at %s; give all members the same configuration",
		upstream, strings.Join(members, ", "))
}

// authorise identifies the caller and checks the rights that the request needs.
func authorise(x *request.Request) (err error) {
	if x.Q.Kind == oci.KindBase {
		x.Caller, err = x.Listener.Policy.Login(x.R)
		return err
	}
	needs := []identity.Need{{Action: identity.Pull, Repository: x.Target.Name}}
	switch {
	case x.Q.Deletes():
		needs[0].Action = identity.Delete
	case x.Q.Write():
		needs[0].Action = identity.Push
	}
	if x.Q.From != "" {
		_, from, err := x.MountSource()
		if err != nil {
			return err
		}
		needs = append(needs, identity.Need{Action: identity.Pull, Repository: from.Name})
	}
	x.Needs = needs
	x.Caller, err = x.Authorise(needs...)
	return err
}

// base answers GET and HEAD of /v2/, by which clients recognise a registry.
func base(x *request.Request) error {
	x.W.Header().Set("Content-Type", "application/json; charset=utf-8")
	x.W.Header().Set("Content-Length", "2")
	_, err := io.WriteString(&x.W, "{}")
	return err
}

// account counts a finished request and writes its log line.
func (l *Listener) account(x *request.Request, err error, start time.Time) {
	took := time.Since(start)
	ended(x, err)
	is := labels{listener: l.Name, kind: string(x.Q.Kind), method: methodLabel(x.R.Method), source: x.Source, status: x.W.Status()}
	if x.Repo.Up != nil {
		is.upstream = x.Repo.Up.Name
	}
	s := l.Mirror.metrics.of(is)
	s.requests.Inc()
	s.seconds.Observe(took.Seconds())
	if s.bytes != nil {
		s.bytes.Add(float64(x.W.Sent()))
	}
	if s.layer != nil && x.W.Sent() > 0 {
		s.layer.Observe(took.Seconds())
	}
	if x.Miss != nil || err != nil {
		l.remember(x, err, took)
	}
	if l.AccessLog == nil {
		return
	}
	log, level := l.AccessLog, slog.LevelInfo
	if err != nil && (x.W.Status() >= 500 || oci.AsError(err).Operator) {
		level = slog.LevelWarn
	}
	if level != slog.LevelInfo || x.Q.Write() {
		log = l.Mirror.log.Handler()
	}
	if ctx := x.R.Context(); log.Enabled(ctx, level) {
		line := slog.NewRecord(start.Add(took), level, "request", 0) // no program counter: it would be the same in every line
		line.AddAttrs(l.attributes(x, err, took)...)
		_ = log.Handle(ctx, line) // slog.Logger ignores this error too
	}
}

// ended records the end of a request in the pull or push that the request belongs to.
func ended(x *request.Request, err error) {
	if x.W.Status() == http.StatusCreated && (x.Q.Kind == oci.KindUploads || x.Q.Kind == oci.KindUpload) {
		x.Live.Stored()
	}
	failed := ""
	if err != nil {
		failed = err.Error()
	}
	x.Live.End(failed, x.ID)
}

// attributes returns the attributes of a request's log line. The line has the user's name. It
// leaves out the query and all headers that have credentials.
func (l *Listener) attributes(x *request.Request, err error, took time.Duration) []slog.Attr {
	a := append(make([]slog.Attr, 0, 23),
		slog.String("listener", l.Name), slog.String("client", x.R.RemoteAddr),
		slog.String("method", x.R.Method), slog.String("kind", string(x.Q.Kind)),
		slog.Int("status", x.W.Status()), slog.Int64("bytes", x.W.Sent()), slog.Duration("took", took))
	if n := x.W.Received(); n > 0 {
		a = append(a, slog.Int64("received", n))
	}
	optional := func(k, v string) {
		if v != "" {
			a = append(a, slog.String(k, v))
		}
	}
	optional("proxy", proxied.Peer(x.R))
	optional("request_id", x.ID)
	if l.Mirror.tracer != nil {
		if span := trace.SpanContextFromContext(x.R.Context()); span.IsSampled() {
			optional("trace_id", span.TraceID().String())
		}
	}
	optional("user", x.Caller.Name)
	optional("upstream", x.Target.Upstream)
	if x.Instead.Up != nil {
		optional("instead_of", x.Instead.Up.Name)
	}
	optional("repository", x.Target.Repo)
	optional("reference", x.Q.Ref.String())
	content, size := x.Content()
	if content != "" && !x.Q.Ref.ByDigest() {
		optional("digest", content.String())
	}
	if content != "" && size >= 0 && size != x.W.Sent() {
		a = append(a, slog.Int64("size", size))
	}
	optional("upload", x.Q.Upload)
	optional("source", x.Source)
	optional("worker", x.Worker)
	optional("agent", x.R.UserAgent())
	if x.Stale != nil {
		optional("stale", x.Stale.Error())
	}
	if err != nil {
		optional("error", err.Error())
	}
	return a
}

// methodLabel returns the value of the metric label "method". It bounds the number of values,
// because clients may send any method.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return m
	}
	return "other"
}
