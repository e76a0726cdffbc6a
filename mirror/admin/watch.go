package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"dray/mirror/admin/api"
)

// Watch answers GET of a path below [api.Prefix] with events, in the form that browsers read
// (text/event-stream of the HTML standard, 9.2). Each item is an event, and is sent at once. The
// answer ends when the client disconnects, when the context shutdown is done, or when the function
// events yields no more items. It also ends after watchFor. The function events must stop when its
// ctx ends, and must not change anything. If it fails before the first item, the answer has the
// status of the error. A later error is the last event, of the type "error".
func Watch[A any](path string, shutdown context.Context, events func(ctx context.Context, params url.Values) iter.Seq2[A, error]) Endpoint {
	return Endpoint{"GET " + api.Prefix + path, func(_ *slog.Logger, w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), watchFor)
		defer cancel()
		defer context.AfterFunc(shutdown, cancel)()
		if r.Method == http.MethodHead { // the answer to a HEAD has no events, so the loop below would only keep the client waiting
			w.Header().Set("Content-Type", "text/event-stream")
			return nil
		}
		begun := false
		for item, err := range events(ctx, r.URL.Query()) {
			if err != nil && !begun {
				return err
			}
			if !begun {
				begun = true
				w.Header().Set("Content-Type", "text/event-stream")
			}
			if err != nil {
				_ = sendEvent(w, "event: error\n", api.Failure{Error: asError(err)}) // fails only if the client has disconnected
				return nil
			}
			if err := sendEvent(w, "", item); err != nil {
				return nil // the client has disconnected
			}
		}
		return nil
	}}
}

// watchFor is how long an answer may last. dray checks the rights of a client only when the answer
// begins, so a client that loses its rights still gets events, but for no longer than watchFor.
const watchFor = 5 * time.Minute

// watchStall bounds the time in which a client must accept an event. Without it, a client on a
// sleeping machine would keep its connection until TCP gives up.
const watchStall = 30 * time.Second

// sendEvent sends an event: first the lines in prefix, and then v as the data, in one line of JSON.
func sendEvent(w http.ResponseWriter, prefix string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	to := http.NewResponseController(w)
	_ = to.SetWriteDeadline(time.Now().Add(watchStall)) // fails only where there is no connection
	if _, err := fmt.Fprintf(w, "%sdata: %s\n\n", prefix, data); err != nil {
		return err
	}
	return to.Flush()
}
