package oci

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Error is an answer of the protocol that is not a success (spec, "Error Codes"). An error from an
// upstream keeps its code, status and message.
type Error struct {
	// Code is the wire code, for example "MANIFEST_UNKNOWN".
	Code string
	// Status is the HTTP status of the answer.
	Status int
	// Message is written for the user of the client, because it is the only part that every client
	// shows.
	Message string
	// Detail says more about the error, as JSON of any form. It may be nil.
	Detail json.RawMessage
	// RetryAfter is the time to wait before the next try; 0 if unknown.
	RetryAfter time.Duration
	// Challenge has the WWW-Authenticate header lines of a 401.
	Challenge []string
	// Operator says that only the operator of the mirror can remove the cause, such as a missing right
	// of the mirror itself.
	Operator bool
	// Err is the cause. It goes to the log. Clients do not get it, except for the text that With puts
	// into the message.
	Err error
}

func sentinel(code errcode.ErrorCode) *Error {
	d := code.Descriptor()
	return &Error{Code: d.Value, Status: d.HTTPStatusCode, Message: d.Message}
}

// The errors of the protocol. errors.Is compares codes, so an error decoded from an upstream
// matches the variable with the same code.
var (
	ErrUnknown             = sentinel(errcode.ErrorCodeUnknown)
	ErrUnsupported         = sentinel(errcode.ErrorCodeUnsupported)
	ErrUnauthorized        = sentinel(errcode.ErrorCodeUnauthorized)
	ErrDenied              = sentinel(errcode.ErrorCodeDenied)
	ErrUnavailable         = sentinel(errcode.ErrorCodeUnavailable)
	ErrTooManyRequests     = sentinel(errcode.ErrorCodeTooManyRequests)
	ErrDigestInvalid       = sentinel(errcode.ErrorCodeDigestInvalid)
	ErrSizeInvalid         = sentinel(errcode.ErrorCodeSizeInvalid)
	ErrRangeInvalid        = sentinel(errcode.ErrorCodeRangeInvalid)
	ErrNameInvalid         = sentinel(errcode.ErrorCodeNameInvalid)
	ErrTagInvalid          = sentinel(errcode.ErrorCodeTagInvalid)
	ErrNameUnknown         = sentinel(errcode.ErrorCodeNameUnknown)
	ErrManifestUnknown     = sentinel(errcode.ErrorCodeManifestUnknown)
	ErrManifestInvalid     = sentinel(errcode.ErrorCodeManifestInvalid)
	ErrManifestBlobUnknown = sentinel(errcode.ErrorCodeManifestBlobUnknown)
	ErrBlobUnknown         = sentinel(errcode.ErrorCodeBlobUnknown)
	ErrBlobUploadUnknown   = sentinel(errcode.ErrorCodeBlobUploadUnknown)
	// CNCF Distribution answers 404 for an upload that exists but is invalid. dray answers 400
	// instead: after a 404, clients would start again, although the upload still exists.
	ErrBlobUploadInvalid = sentinel(errcode.ErrorCodeBlobUploadInvalid).WithStatus(http.StatusBadRequest)
	ErrPaginationInvalid = sentinel(errcode.ErrorCodePaginationNumberInvalid)
)

// WithStatus returns a copy with another HTTP status.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// With returns a copy with a message. A %w verb keeps the cause for errors.Is, errors.As and
// the log. The text of that cause is part of the message, so wrap only errors that a client may
// see.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	err := fmt.Errorf(format, args...)
	c.Message = err.Error()
	if u := errors.Unwrap(err); u != nil {
		c.Err = u
	}
	return &c
}

// Because returns a copy with a cause that goes only to the log.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Err = cause
	return &c
}

// Error returns the text for the log: the code, the message and, unless the message contains it,
// the cause.
func (e *Error) Error() string {
	s := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil && !strings.Contains(e.Message, e.Err.Error()) {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// NotFound reports whether a registry answered that the content does not exist. It checks the
// status and not the code, because a registry that fails may send the code of missing content with
// a 5xx.
func NotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// NotPushed returns the error for this case: a manifest names d, but no client has pushed d to the
// repository. The kind of d is KindBlob or KindManifest.
func NotPushed(kind Kind, d digest.Digest, repo string) *Error {
	by := "manifest"
	if kind == KindManifest {
		by = "index"
	}
	return ErrManifestBlobUnknown.With("the %s needs %s %s, which was not pushed to %s", by, kind, d, repo)
}

// wireErrors is the body of every error answer (spec, "Error Codes").
type wireErrors struct {
	Errors []wireError `json:"errors"`
}

type wireError struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

// AsError returns the protocol error that err wraps. If there is none, an exceeded deadline becomes
// a 504, and any other error becomes a 500 UNKNOWN. The messages of these two do not contain the
// cause, which may name hosts and files.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrUnavailable.With("the upstream registry did not answer in time").Because(err).WithStatus(http.StatusGatewayTimeout)
	}
	return (&Error{Code: ErrUnknown.Code, Status: http.StatusInternalServerError, Message: "internal error; see the log of the mirror"}).Because(err)
}

// WriteError writes an error as JSON and returns the protocol error that it wrote. No other
// function writes errors. The caller must not have begun to write the answer.
func WriteError(w http.ResponseWriter, err error) *Error {
	e := AsError(err)
	h := w.Header()
	for _, c := range e.Challenge {
		h.Add("WWW-Authenticate", c)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	body, merr := json.Marshal(wireErrors{[]wireError{{e.Code, e.Message, e.Detail}}})
	if merr != nil { // Detail is not JSON; the rest can always be encoded
		body, _ = json.Marshal(wireErrors{[]wireError{{Code: e.Code, Message: e.Message}}})
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	status := e.Status
	if status < 400 || status > 599 { // a redirect of an upstream, or an unexpected 2xx
		status = http.StatusBadGateway
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // this fails only if the client is gone
	return e
}

// maxErrorBody bounds how many bytes DecodeError reads from an upstream's answer. The spec sets no
// limit; registries send well under a kilobyte.
const maxErrorBody = 8 << 10

// DecodeError converts an upstream's error answer to an Error. It reads at most 8 KiB of the body
// and does not close the body. It ignores the content type, because ECR sends JSON as text/plain.
// An answer that is not in the form of the spec (the answer to a HEAD, or a load balancer's page)
// gets its code from codeOf.
func DecodeError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, RetryAfter: RetryAfter(resp.Header)}
	if resp.StatusCode == http.StatusUnauthorized {
		e.Challenge = resp.Header.Values("WWW-Authenticate")
	}
	var wire wireErrors
	var body []byte
	text, err := Text(resp)
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(text, maxErrorBody))
	}
	if err == nil && json.Unmarshal(body, &wire) == nil && len(wire.Errors) > 0 && wire.Errors[0].Code != "" {
		first := wire.Errors[0]
		e.Code, e.Message, e.Detail = strings.ToUpper(first.Code), first.Message, first.Detail
		return e
	}
	e.Code = codeOf(resp)
	e.Message = fmt.Sprintf("the upstream registry answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	return e
}

// codes are the codes by HTTP status, for answers without a code in the body.
var codes = map[int]string{
	http.StatusUnauthorized:                 ErrUnauthorized.Code,
	http.StatusForbidden:                    ErrDenied.Code,
	http.StatusMethodNotAllowed:             ErrUnsupported.Code,
	http.StatusRequestedRangeNotSatisfiable: ErrRangeInvalid.Code,
	http.StatusTooManyRequests:              ErrTooManyRequests.Code,
	http.StatusBadGateway:                   ErrUnavailable.Code,
	http.StatusServiceUnavailable:           ErrUnavailable.Code,
	http.StatusGatewayTimeout:               ErrUnavailable.Code,
}

// codeOf returns the code for an answer without a code in the body. The code depends on the status,
// and for a 404 also on the URL.
func codeOf(resp *http.Response) string {
	if resp.StatusCode == http.StatusNotFound {
		return notFoundCode(resp)
	}
	return cmp.Or(codes[resp.StatusCode], ErrUnknown.Code)
}

func notFoundCode(resp *http.Response) string {
	if resp.Request == nil {
		return ErrNameUnknown.Code
	}
	// The name of a repository may contain "/blobs/" or "/manifests/", too, so the last one counts.
	p := resp.Request.URL.Path
	blobs, manifests := strings.LastIndex(p, "/blobs/"), strings.LastIndex(p, "/manifests/")
	switch list := max(strings.LastIndex(p, "/tags/list"), strings.LastIndex(p, "/referrers/")); {
	case list >= max(blobs, manifests):
		return ErrNameUnknown.Code
	case manifests > blobs:
		return ErrManifestUnknown.Code
	case strings.HasPrefix(p[blobs:], "/blobs/uploads/"):
		return ErrBlobUploadUnknown.Code
	}
	return ErrBlobUnknown.Code
}

// RetryAfter parses the Retry-After header in both of its forms (RFC 9110, 10.2.3). It returns
// at most an hour, and 0 for a missing or invalid header.
func RetryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); s > 0 && (err == nil || errors.Is(err, strconv.ErrRange)) {
		return time.Duration(min(s, 3600)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, min(time.Until(t), time.Hour))
	}
	return 0
}
