package writer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/propagation"

	"dray/cache/fleet"
	"dray/mirror/proxied"
	"dray/mirror/request"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// movedError says that the member that was asked is not the writer, and names the writer.
type movedError struct{ fleet.Lease }

func (e *movedError) Error() string {
	return fmt.Sprintf("member %s works on the repository", e.Holder)
}

// goneError says that a member did not answer, and that it has not begun to work on the request. So
// the request can be repeated.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// again reports whether it makes sense to ask the same member a second time.
func (e *goneError) again() bool { return !errors.Is(e.err, errSilent) }

var (
	errSilent = errors.New("the member gave no sign of life")
	errLate   = errors.New("the member has not begun to answer")
	// errNotTaken says that passing.takes returned false for the member's answer.
	errNotTaken = errors.New("the member has no answer")
)

// passing says how a request is passed on.
type passing struct {
	// repository is the text of the repository's key, "" if the request is about no repository.
	repository string
	// bounded says that the answer has to begin within Patience.Begin.
	bounded bool
	// takes reports, by the status of an answer, whether pass sends the answer to the client. If takes
	// is nil, pass sends every answer.
	takes func(status int) bool
}

// maxErrorBody bounds, in bytes, the body of a member's error, which relay reads as a whole.
const maxErrorBody = 1 << 20

// pass passes a request on to a member, and sends the member's answer to the client. If pass has
// sent the client nothing, the error is a *movedError, a *goneError, errNotTaken, errLate, or an
// error for the client. If pass has sent the client an error, it also returns this error, for the
// log.
func (w *Writers) pass(x *request.Request, to fleet.Lease, how passing) error {
	ctx, stop := context.WithCancelCause(x.R.Context())
	defer stop(nil)
	body := x.W.Pass()
	defer body.End()
	var at progress
	r, err := w.outgoing(at.of(ctx), x, body, how)
	if err != nil {
		return err
	}
	late := func() bool { return true }
	if how.bounded {
		late = time.AfterFunc(w.o.Patience.Begin, func() { stop(errLate) }).Stop
	}
	member := w.member(to)
	defer w.watch(ctx, member, func() {
		stop(errSilent)
		body.Interrupt() // ends a read that is under way, for which net/http would wait
	})()
	resp, err := w.o.Members.Send(r.Context(), member, r)
	if !late() && err == nil {
		_ = resp.Body.Close() // stop has ended ctx, so the body would break off
		err = errLate
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errLate) {
			err = cause
		}
		return w.unanswered(x, body, &at, err)
	}
	defer resp.Body.Close()
	if text := resp.Header.Get(headerMoved); text != "" {
		m := &movedError{}
		if err := decode(text, &m.Lease); err != nil {
			return err
		}
		return m
	}
	if resp.Header.Get(headerWorker) != to.Holder {
		return w.unanswered(x, body, &at, fmt.Errorf("the member answered %s", resp.Status))
	}
	if how.takes != nil && !how.takes(resp.StatusCode) {
		return errNotTaken
	}
	body.Early()
	return w.relay(x, to, resp)
}

// progress records how far a request to another member has got.
type progress struct{ sent, answered atomic.Bool }

// [progress.of] returns ctx with a trace that records in p how far a request has got.
func (p *progress) of(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders:         func() { p.sent.Store(true) },
		GotFirstResponseByte: func() { p.answered.Store(true) },
	})
}

// done reports whether the member may already have carried out a write that has no body. Such a
// write can fail when it is sent again, because the first one left nothing to do, for example a
// DELETE. Reads, and requests that begin an upload, can always be sent again. Call done only if the
// member has given no valid answer. p.answered is then true only if another process has answered,
// so the member has done nothing.
func (p *progress) done(x *request.Request) bool {
	once := x.Q.Write() && x.R.Method != http.MethodPost && x.R.ContentLength == 0
	return once && p.sent.Load() && !p.answered.Load()
}

// unanswered returns the error for a request that has got no answer. If the request cannot be sent
// again, unanswered also sends the error to the client, unless the client has left.
func (w *Writers) unanswered(x *request.Request, body *wire.Passed, at *progress, err error) error {
	switch {
	case x.R.Context().Err() != nil && !errors.Is(err, errSilent):
		return context.Cause(x.R.Context())
	case errors.Is(err, errLate):
		return err
	case errors.Is(err, fleet.ErrProtocol): // the member remains the writer, so the error is no *goneError
		w.m.passed.WithLabelValues(passedFailed).Inc()
		return tooFar(x, body, err)
	case !body.Abandon() && !at.done(x):
		return &goneError{err}
	}
	w.m.passed.WithLabelValues(passedFailed).Inc()
	body.Early()
	if lost := body.Lost(); lost != nil {
		err = oci.ErrBlobUploadInvalid.With("the body of the request ended early").Because(lost)
	} else {
		err = notReached(x, err)
	}
	return x.Fail(err) // before body.End breaks the connection
}

// tooFar returns the error for a request to a writer whose protocol this member does not speak. If
// the body has been read in part, tooFar also sends the error to the client.
func tooFar(x *request.Request, body *wire.Passed, err error) error {
	err = oci.ErrUnavailable.With("%v; it works on the pushes to %s: give all members of the fleet the same version of dray, or two successive versions, and push again", err, x.Repo.Name)
	if body.Abandon() {
		body.Early()
		return x.Fail(err)
	}
	return err
}

// relay sends the answer of a member to the client.
func (w *Writers) relay(x *request.Request, from fleet.Lease, resp *http.Response) error {
	x.Worker = from.Holder
	w.m.passed.WithLabelValues(passedAnswered).Inc()
	h := x.W.Header()
	for name, values := range resp.Header {
		if !ownHeader(name) {
			h[name] = values
		}
	}
	x.Source = resp.Header.Get("X-Cache")
	if d := digest.Digest(resp.Header.Get("Docker-Content-Digest")); d.Validate() == nil {
		size := resp.ContentLength
		if x.Q.Write() {
			size = x.R.ContentLength
		}
		x.Describe(d, size)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return x.W.Relay(resp.StatusCode, resp.Body, resp.ContentLength)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && x.R.Context().Err() == nil {
		return notReached(x, err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	e := oci.DecodeError(resp)
	length := int64(len(text))
	if x.R.Method == http.MethodHead {
		length = 0
	}
	return cmp.Or(x.W.Relay(resp.StatusCode, bytes.NewReader(text), length), error(e))
}

// ownHeader reports whether a header line concerns only one connection, or only the members.
func ownHeader(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Date":
		return true
	}
	return strings.HasPrefix(name, "Dray-")
}

// secretHeader reports whether a header line has the credentials of the client, which no other
// member needs.
func secretHeader(name string) bool {
	return name == "Authorization" || name == "Proxy-Authorization" || name == "Cookie"
}

// maxHeader bounds the header of a request that is passed on, in bytes. A member refuses more than
// 16 KiB.
const maxHeader = 12 << 10

// outgoing returns the request that is sent to the member. Its body is not sent before the member
// asks for it, so that the member can refuse the request first.
func (w *Writers) outgoing(ctx context.Context, x *request.Request, body *wire.Passed, how passing) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, x.R.Method, requestPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, values := range x.R.Header {
		if !ownHeader(name) && !secretHeader(name) && name != "Content-Length" && name != "Expect" {
			r.Header[name] = values
		}
	}
	r.Header["User-Agent"] = []string{x.R.UserAgent()} // an empty one keeps net/http from adding its own
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	r.Header.Set("X-Request-Id", x.ID)
	r.Header.Set(headerRequest, encode(envelope{
		Listener: x.Listener.Name, Repository: how.repository, URI: x.R.URL.RequestURI(), Host: x.R.Host, External: x.Listener.ExternalURL, TLS: x.R.TLS != nil,
		Client: x.R.RemoteAddr, Proxy: proxied.Peer(x.R), User: x.Caller.Name, Granted: x.Needs,
	}))
	size := 0
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	if size > maxHeader {
		return nil, oci.ErrUnsupported.With("the header of the request is too long").WithStatus(http.StatusRequestHeaderFieldsTooLarge)
	}
	if x.R.ContentLength != 0 {
		r.Body, r.ContentLength = body, x.R.ContentLength
		r.Header.Set("Expect", "100-continue")
	}
	return r, nil
}

// member returns the member that a lease names.
func (w *Writers) member(l fleet.Lease) fleet.Member {
	for _, m := range w.o.Members.Live() {
		if m.ID == l.Holder {
			m.Address = l.Address
			return m
		}
	}
	return fleet.Member{ID: l.Holder, Address: l.Address, Protocol: w.o.Self.Protocol}
}

// silentFor bounds the time without a sign of life from a member that works on a request, as a
// multiple of Patience.Stall. With the default Stall, this time is as long as a lease lasts.
const silentFor = 5

// watch asks a member after each Patience.Stall whether it is alive, while the member works on a
// request. It calls giveUp if nothing listens at the member's address, or if the member has been
// silent for silentFor times Patience.Stall. The caller calls stop to end the watch.
func (w *Writers) watch(ctx context.Context, m fleet.Member, giveUp func()) (stop func()) {
	v := &vigil{w: w, member: m, ctx: ctx, lost: giveUp, last: time.Now()}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer = time.AfterFunc(w.o.Patience.Stall, v.ask)
	return v.end
}

type vigil struct {
	w      *Writers
	member fleet.Member
	ctx    context.Context
	lost   func()
	last   time.Time      // the last sign of life; used only by ask
	asking sync.WaitGroup // the question under way

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	over  bool
}

func (v *vigil) ask() {
	v.mu.Lock()
	if v.over {
		v.mu.Unlock()
		return
	}
	v.asking.Add(1)
	defer v.asking.Done()
	v.mu.Unlock()
	err := v.alive()
	if err == nil {
		v.last = time.Now()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.over:
	case errors.Is(err, syscall.ECONNREFUSED), err != nil && time.Since(v.last) >= silentFor*v.w.o.Patience.Stall:
		v.lost()
	default:
		v.timer.Reset(v.w.o.Patience.Stall)
	}
}

// alive asks the member. Any answer is a sign of life.
func (v *vigil) alive() error {
	ctx, cancel := context.WithTimeout(v.ctx, v.w.o.Patience.Answer)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, alivePath, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := v.w.o.Members.Send(ctx, v.member, r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (v *vigil) end() {
	v.mu.Lock()
	v.over = true
	v.timer.Stop()
	v.mu.Unlock()
	v.asking.Wait()
}
