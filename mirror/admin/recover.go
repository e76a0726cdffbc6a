package admin

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"dray/mirror/admin/api"
)

// recovering returns a handler that calls inner and handles a panic of inner. It logs the panic
// once as an error, and answers with 500. If part of an answer has been sent, it cuts the
// connection. The server of net/http would recover the panic too late for an answer, and log it
// without a level.
func recovering(log *slog.Logger, inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { // the handler asks to cut the connection; not an error
				panic(v)
			}
			log.Error("panic", "request", r.Method+" "+r.URL.Path, "value", v, "stack", string(debug.Stack()))
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			failure := api.Errorf(api.CodeInternal, "panic: %v; this is a bug in dray, and its log has the stack trace", v)
			if strings.HasPrefix(r.URL.Path, api.Prefix) {
				_ = sendJSON(w, failure.Code.Status(), api.Failure{Error: failure}) // the encoding cannot fail, because failure has only two strings
				return
			}
			http.Error(w, failure.Message, failure.Code.Status())
		}()
		inner.ServeHTTP(out, r)
	})
}

// response records whether an answer has begun.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap implements the interface of http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
