package ecrtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// surface is one of the APIs of a Server: its name in the journal, the kinds of its requests, and
// the form of its errors.
type surface struct {
	name string
	kind func(*http.Request) Kind
	fail func(http.ResponseWriter, *wireError)
	// busy and broken are the codes for throttling and for errors of the server.
	busy, broken string
}

// complete fills in the code and message that this API uses, if a fault's answer has none.
func (sf surface) complete(e *wireError) *wireError {
	if e.Status == http.StatusTooManyRequests {
		e.Code = orDefault(e.Code, sf.busy)
		e.Message = orDefault(e.Message, "Rate exceeded")
	}
	e.Code = orDefault(e.Code, sf.broken)
	e.Message = orDefault(e.Message, http.StatusText(e.Status))
	return e
}

// observe counts and logs requests, and applies faults to them.
func (s *Server) observe(sf surface, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &Entry{Time: s.now(), Surface: sf.name, Kind: sf.kind(r), Method: r.Method, Host: r.Host, Path: logPath(r.URL),
			Proto: r.Proto, Remote: r.RemoteAddr, Request: requestHeaders(r)}
		s.journal.begin(e)
		defer func() {
			s.journal.end(e)
			s.opts.Logger.Info("request", "kind", e.Kind, "method", e.Method, "host", e.Host, "path", e.Path, "status", e.Status)
		}()
		plan := s.faults.take(e.Kind, r, func() digest.Digest { return s.requestedBlob(r) })
		rec := &recorder{ResponseWriter: w, entry: e, journal: s.journal, plan: plan, ctx: r.Context()}
		body := &countedBody{ReadCloser: r.Body, entry: e, journal: s.journal, ctx: r.Context(), cut: plan.cutRequest, pacers: plan.incoming}
		r.Body = body
		plan.waitLatency(r.Context())
		if plan.answer != nil {
			sf.fail(rec, sf.complete(plan.answer))
			return
		}
		if plan.dropAnswer {
			next(&discardedAnswer{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // the work is done, and the answer is lost
		}
		next(rec, r)
		rec.append(plan.extra)
		if body.cut >= 0 && body.read >= body.cut {
			panic(http.ErrAbortHandler) // the fault closes the connection during the upload
		}
	})
}

// requestedBlob returns the blob that a request is about. The path of a request to the object store
// ends with the name of the object. Most other paths of requests about blobs end with the digest.
// For any other path, the result is the last part of the path, which no fault names as its blob.
func (s *Server) requestedBlob(r *http.Request) digest.Digest {
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if l, ok := s.findObject(name); ok {
		return l.digest
	}
	return digest.Digest(name)
}

// errCut is the error that a handler gets from the body if a fault ends the request.
var errCut = errors.New("connection cut by a fault")

// logPath returns the path and query for the log, without the signature.
func logPath(u *url.URL) string {
	if u.RawQuery == "" {
		return u.EscapedPath()
	}
	q := u.Query()
	for k := range q {
		if strings.HasPrefix(k, "X-Amz-") {
			q.Del(k)
		}
	}
	if len(q) == 0 {
		return u.EscapedPath()
	}
	return u.EscapedPath() + "?" + q.Encode()
}

func requestHeaders(r *http.Request) map[string]string {
	m := chosen(r.Header, "Accept", "Content-Encoding", "Content-Range", "Content-Type", "If-None-Match", "Range", "Traceparent", "User-Agent", "X-Amz-Target")
	if v := strings.Join(r.Header.Values("Accept"), ", "); v != "" {
		m["Accept"] = v
	}
	if cl := r.Header.Get("Content-Length"); cl != "" {
		m["Content-Length"] = cl
	}
	if v := r.Header.Get("Authorization"); v != "" {
		scheme, _, _ := strings.Cut(v, " ")
		m["Authorization"] = scheme + " [redacted]"
	}
	return m
}

// countedBody counts the bytes of a request, and ends the request if a fault says so.
type countedBody struct {
	io.ReadCloser
	entry   *Entry
	journal *journal
	ctx     context.Context
	pacers  pacers
	cut     int64 // bytes after which the connection is closed; negative: never
	read    int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.cut >= 0 {
		if b.read >= b.cut {
			return 0, errCut
		}
		p = p[:min(int64(len(p)), b.cut-b.read)]
	}
	n, err := b.ReadCloser.Read(p[:b.pacers.maxPiece(len(p))])
	if werr := b.pacers.wait(b.ctx, n); werr != nil {
		return n, werr
	}
	b.read += int64(n)
	b.journal.addBytes(b.entry, int64(n), 0)
	return n, err
}

// discardedAnswer is an http.ResponseWriter that discards the answer.
type discardedAnswer struct{ header http.Header }

func (d *discardedAnswer) Header() http.Header         { return d.header }
func (d *discardedAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (d *discardedAnswer) WriteHeader(int)             {}
