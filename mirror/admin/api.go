package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"dray/mirror/admin/api"
	"dray/mirror/identity"
)

// maxRequestBytes bounds the body of a request to the API.
const maxRequestBytes = 64 << 10

// asError returns an Error with the message of err. Its code is the code of the Error that err
// wraps, or CodeInternal if err wraps no Error.
func asError(err error) *api.Error {
	e := &api.Error{Code: api.CodeInternal, Message: err.Error()}
	if inner, ok := errors.AsType[*api.Error](err); ok {
		e.Code = inner.Code
	}
	return e
}

// Endpoint is one endpoint of the API: create it with [Query], [List], [Watch], [Change] or [Work].
type Endpoint struct {
	pattern string // for http.ServeMux
	serve   func(log *slog.Logger, w http.ResponseWriter, r *http.Request) error
}

// Query answers GET of a path below [api.Prefix]. The function query must not change anything.
func Query[A any](path string, query func(ctx context.Context, params url.Values) (A, error)) Endpoint {
	return Endpoint{"GET " + api.Prefix + path, func(_ *slog.Logger, w http.ResponseWriter, r *http.Request) error {
		answer, err := query(r.Context(), r.URL.Query())
		if err != nil {
			return err
		}
		return sendJSON(w, http.StatusOK, answer)
	}}
}

// Number returns the value of a parameter, which must be a positive number. If the request does not
// have the parameter, Number returns fallback.
func Number(params url.Values, name string, fallback int64) (int64, error) {
	text := params.Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, api.Errorf(api.CodeInvalid, "%s must be a positive number", name)
	}
	return n, nil
}

// List answers GET of a path below [api.Prefix] with {"items": [...]}. It writes each item as soon
// as the function list yields it, because a cache may have a million blobs. The function list
// must not change anything. If it fails before the first item, the answer has the status of the
// error. A later error follows the items as the member "error". The status, which has been sent by
// then, says success.
func List[A any](path string, list func(ctx context.Context, params url.Values) iter.Seq2[A, error]) Endpoint {
	return Endpoint{"GET " + api.Prefix + path, func(_ *slog.Logger, w http.ResponseWriter, r *http.Request) error {
		out := &listing{w: w}
		for item, err := range list(r.Context(), r.URL.Query()) {
			if err == nil {
				err = out.add(item)
			}
			if err != nil {
				return out.end(err)
			}
		}
		return out.end(nil)
	}}
}

// Change answers POST of a path below [api.Prefix]. Every endpoint that changes something is a
// Change or a [Work]. The body is a JSON object, which may have only the fields of Q as members.
// The endpoint calls the function change only for requests that a page of another site cannot have
// sent: see [checkChange].
func Change[Q, A any](path string, change func(ctx context.Context, q Q) (A, error)) Endpoint {
	return Endpoint{"POST " + api.Prefix + path, func(log *slog.Logger, w http.ResponseWriter, r *http.Request) error {
		q, line, err := readChange[Q](log, path, r)
		if err != nil {
			return err
		}
		answer, err := change(r.Context(), q)
		if err != nil {
			line.Info("operator", "error", err)
			return err
		}
		line.Info("operator")
		return sendJSON(w, http.StatusOK, answer)
	}}
}

// Work is a [Change] that takes a long time. Its answer has the form of a [List]: each item says
// how far the work has come, and is sent at once. The work ends when the client disconnects.
func Work[Q, A any](path string, do func(ctx context.Context, q Q) iter.Seq2[A, error]) Endpoint {
	return Endpoint{"POST " + api.Prefix + path, func(log *slog.Logger, w http.ResponseWriter, r *http.Request) error {
		q, line, err := readChange[Q](log, path, r)
		if err != nil {
			return err
		}
		line.Info("operator")
		out := &listing{w: w}
		for item, err := range do(r.Context(), q) {
			if err == nil {
				err = out.add(item)
			}
			if err != nil {
				line.Info("operator", "error", err)
				return out.end(err)
			}
			_ = http.NewResponseController(w).Flush() // fails only if the client has disconnected
		}
		return out.end(nil)
	}}
}

// readChange checks and decodes the request for a change. It also returns the logger for the log
// line about the change.
func readChange[Q any](log *slog.Logger, path string, r *http.Request) (q Q, line *slog.Logger, err error) {
	if err := checkChange(r); err != nil {
		return q, nil, err
	}
	body, err := readJSON(r.Body, &q)
	line = log.With("did", path, "with", string(body), "client", r.RemoteAddr)
	if who, _ := r.Context().Value(callerKey{}).(identity.Principal); who.Name != "" {
		line = line.With("user", who.Name)
	}
	return q, line, err
}

// checkChange refuses requests that a browser may have sent for a page of another site. For such a
// page, a browser sends some POST requests without asking the server first (Fetch standard,
// "CORS-safelisted request-header"). So checkChange requires the content type application/json:
// before a POST with this type, the browser sends a preflight request, which no endpoint here
// answers. [guard] has checked the Host header already, against DNS rebinding.
func checkChange(r *http.Request) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return api.Errorf(api.CodeInvalid, "Content-Type must be application/json")
	}
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return api.Errorf(api.CodeForbidden, "requests from other sites are refused")
	}
	return nil
}

// readJSON decodes one JSON object into a value, and rejects unknown members. It also returns the
// bytes that it read.
func readJSON(from io.Reader, into any) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, maxRequestBytes+1))
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the request is incomplete: %v", err)
	}
	if len(body) > maxRequestBytes {
		return nil, api.Errorf(api.CodeInvalid, "the request is longer than %d bytes", maxRequestBytes)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return nil, api.Errorf(api.CodeInvalid, "the request is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "cannot decode the request: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, api.Errorf(api.CodeInvalid, "unexpected data after the JSON object")
	}
	return body, nil
}

// mount adds endpoints to a mux. For all other paths below [api.Prefix], it answers with an error
// of the API.
func mount(mux *http.ServeMux, endpoints []Endpoint, log *slog.Logger) {
	for _, e := range endpoints {
		mux.HandleFunc(e.pattern, func(w http.ResponseWriter, r *http.Request) {
			header(w)
			if err := e.serve(log, w, r); err != nil {
				failed := asError(err)
				_ = sendJSON(w, failed.Code.Status(), api.Failure{Error: failed}) // fails only if the client has disconnected
			}
		})
	}
	mux.HandleFunc(api.Prefix, func(w http.ResponseWriter, r *http.Request) {
		header(w)
		_ = sendJSON(w, http.StatusNotFound, api.Failure{Error: api.Errorf(api.CodeNotFound, "unknown endpoint %s %s", r.Method, r.URL.Path)})
	})
}

func header(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }

// sendJSON sends a whole answer. If v cannot be encoded, it returns an error and sends nothing.
func sendJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	out := json.NewEncoder(&buf)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // fails only if the client has disconnected
	return nil
}

// listing is the body of a [List].
type listing struct {
	w     http.ResponseWriter
	begun bool
}

func (l *listing) add(item any) error {
	line, err := json.Marshal(item)
	if err != nil {
		return err
	}
	separator := ",\n"
	if !l.begun {
		separator = l.begin()
	}
	if _, err := l.w.Write(append([]byte(separator), line...)); err != nil {
		return fmt.Errorf("client disconnected: %w", err)
	}
	return nil
}

// begin sets the header and returns the text before the first item.
func (l *listing) begin() string {
	l.begun = true
	l.w.Header().Set("Content-Type", "application/json")
	return "{\"items\": [\n"
}

// end completes the answer. If err came before the first item, end sends nothing and returns err.
func (l *listing) end(err error) error {
	if err != nil && !l.begun {
		return err
	}
	tail := ""
	if !l.begun {
		tail = l.begin()
	}
	tail += "\n]"
	if err != nil {
		why, _ := json.Marshal(asError(err)) // cannot fail for two strings
		tail += ", \"error\": " + string(why)
	}
	_, _ = io.WriteString(l.w, tail+"}\n") // fails only if the client has disconnected
	return nil
}
