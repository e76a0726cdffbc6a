package admin

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"dray/mirror/admin/api"
)

// recovering makes a panic of next an answer like others: logged once as an error, and a 500. Where
// part of another answer is out, the connection is cut. What is logged by the server of net/http
// comes too late for an answer, and without a level.
func recovering(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { // meant to cut the connection, and nothing to tell of
				panic(v)
			}
			log.Error("panic", "request", r.Method+" "+r.URL.Path, "value", v, "stack", string(debug.Stack()))
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			failed := api.Errorf(api.CodeInternal, "panic: %v; this is a bug in dray, and its log has the stack trace", v)
			if strings.HasPrefix(r.URL.Path, api.Prefix) {
				_ = sendJSON(w, failed.Code.Status(), api.Failure{Error: failed}) // two strings
				return
			}
			http.Error(w, failed.Message, failed.Code.Status())
		}()
		next.ServeHTTP(out, r)
	})
}

// response knows whether an answer was begun.
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

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
