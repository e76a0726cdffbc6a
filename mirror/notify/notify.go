package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/pipeline/webhook"
)

// MediaType is the media type of the body in which events are sent.
const MediaType = "application/vnd.docker.distribution.events.v2+json"

// Actions of events. Push and Delete are also actions of the distribution registry.
const (
	Push   = "push"
	Delete = "delete"
	// Verdict is the action for the verdict on a push. Event.Verdict has that verdict.
	Verdict = "verdict"
	// Pull is also an action of the distribution registry, which sends it for each manifest and blob.
	// dray sends one event for each pulled image, and only to endpoints whose field Pulls is true.
	// Event.Pull describes the pull.
	Pull = "pull"
)

// Event describes a push, a deletion, a verdict or a pull. Emit sets ID, Timestamp, Source and
// Target.Length.
type Event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
	// Upstream is the name of the target's upstream.
	Upstream string `json:"upstream"`
	// Verdict is set if Action is Verdict.
	Verdict *Outcome `json:"verdict,omitempty"`
	// Pull is set if Action is Pull.
	Pull *Pulled `json:"pull,omitempty"`
}

// Pulled describes the pull of an image by a client.
type Pulled struct {
	Began time.Time `json:"began"`
	// Ended is the time of the last request, to the second.
	Ended time.Time `json:"ended"`
	// Asked is the number of layers that the client has asked for, and Layers the number of all
	// layers. The client already had the other layers, or gave up.
	Asked  int `json:"asked"`
	Layers int `json:"layers"`
	// Bytes counts the bytes that dray has sent, and Sources the bytes from each source.
	Bytes    int64            `json:"bytes"`
	Sources  map[string]int64 `json:"sources"`
	Failures int              `json:"failures"`
}

// Target is the manifest or blob that the event is about. Digest is empty if dray refused a push
// because of its name, before the client sent the content.
type Target struct {
	MediaType  string        `json:"mediaType,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	Size       int64         `json:"size,omitempty"`
	Length     int64         `json:"length,omitempty"` // the same as Size
	Repository string        `json:"repository"`
	URL        string        `json:"url,omitempty"`
	Tag        string        `json:"tag,omitempty"`
}

// Request is the request that caused an event.
type Request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

// Actor is the client that caused an event. The name is empty for anonymous clients.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the process that emits the event.
type Source struct {
	Addr       string `json:"addr,omitempty"`
	InstanceID string `json:"instanceID,omitempty"`
}

// Outcome is a verdict without its findings, which may be many.
type Outcome struct {
	// Result is pass, reject or unknown. Unknown means that the image was rejected only because a
	// stage had no result.
	Result   string `json:"result"`
	Checks   string `json:"checks"`
	Findings int    `json:"findings"`
	Unknowns int    `json:"unknowns"`
	// Rules are the rules that rejected the image, as stage/rule.
	Rules []string `json:"rules,omitempty"`
	// Report is the address of the full report, which dray keeps for a limited time.
	Report string `json:"report,omitempty"`
}

// Endpoint is a service that receives events.
type Endpoint struct {
	// Name is the name in metrics and logs. If it is empty, New sets it to the host of the service.
	Name string
	// Service is where events are posted to.
	webhook.Service
	// Timeout bounds one request. 0 means 5 s.
	Timeout time.Duration
	// Backlog bounds the events that wait for the endpoint. 0 means 1000.
	Backlog int
	// Pulls says that the service also receives events of the action Pull.
	Pulls bool
}

// Notifier sends events to endpoints. Its methods may be called concurrently.
type Notifier struct {
	endpoints []*endpoint
	source    Source
	events    *prometheus.CounterVec
	log       *slog.Logger
}

// endpoint is an Endpoint with its backlog.
type endpoint struct {
	Endpoint
	waiting chan Event
	client  *http.Client
}

// New returns a Notifier, which sends nothing before Run. log may be nil.
func New(endpoints []Endpoint, transport http.RoundTripper, log *slog.Logger) (*Notifier, error) {
	host, _ := os.Hostname() // an empty name is left out
	n := &Notifier{
		source: Source{Addr: host, InstanceID: rand.Text()}, log: cmp.Or(log, slog.New(slog.DiscardHandler)),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_notifications_total",
			Help: "Events for endpoints, by endpoint and result: sent, failed (dray tries again), refused, or dropped (too many waited, or dray stopped)."}, []string{"endpoint", "result"}),
	}
	for _, e := range endpoints {
		e.Name = cmp.Or(e.Name, e.Host())
		e.Timeout, e.Backlog = cmp.Or(e.Timeout, 5*time.Second), cmp.Or(e.Backlog, 1000)
		if e.Timeout < 0 || e.Backlog < 0 {
			return nil, fmt.Errorf("endpoint %s: timeout and backlog must be more than zero", e.Name)
		}
		n.endpoints = append(n.endpoints, &endpoint{e, make(chan Event, e.Backlog), &http.Client{
			Transport: transport,
			// A signed request must not be sent to another service.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}})
		for _, result := range []string{"sent", "failed", "refused", "dropped"} {
			n.events.WithLabelValues(e.Name, result) // start at 0, so that the first event is an increase
		}
	}
	return n, nil
}

// Emit queues an event for every endpoint that gets events of its action, and never blocks. It
// drops the event for an endpoint whose backlog is full.
func (n *Notifier) Emit(e Event) {
	e.ID, e.Timestamp, e.Source = rand.Text(), time.Now().UTC(), n.source
	e.Target.Length = e.Target.Size
	for _, to := range n.endpoints {
		if e.Action == Pull && !to.Pulls {
			continue
		}
		select {
		case to.waiting <- e:
		default:
			n.count(to, "dropped")
		}
	}
}

func (n *Notifier) count(to *endpoint, result string) {
	n.events.WithLabelValues(to.Name, result).Inc()
}

// Collectors returns the metrics.
func (n *Notifier) Collectors() []prometheus.Collector { return []prometheus.Collector{n.events} }

// flushWithin bounds the sending of waiting events when dray stops.
const flushWithin = 5 * time.Second

// Run sends events until ctx ends, and then tries each waiting event once.
func (n *Notifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, to := range n.endpoints {
		wg.Go(func() {
			var unsent []Event
			for ctx.Err() == nil {
				select {
				case e := <-to.waiting:
					if !n.deliver(ctx, to, e) {
						unsent = append(unsent, e)
					}
				case <-ctx.Done():
				}
			}
			n.flush(context.WithoutCancel(ctx), to, unsent)
		})
	}
	return nil
}

// firstPause is the pause before the second try. Each further pause is twice as long, up to
// lastPause.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// deliver sends an event repeatedly until the endpoint accepts it or refuses it for good. If ctx
// ends first, deliver returns false.
func (n *Notifier) deliver(ctx context.Context, to *endpoint, e Event) bool {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		again, err := to.post(ctx, e)
		switch {
		case err == nil:
			n.count(to, "sent")
			return true
		case !again:
			n.count(to, "refused")
			n.log.Warn("event refused by the endpoint", "endpoint", to.Name, "event", e.ID, "action", e.Action, "error", err)
			return true
		case ctx.Err() != nil: // the request failed because dray is stopping
			return false
		}
		n.count(to, "failed")
		if pause == firstPause {
			n.log.Warn("event not sent, retrying", "endpoint", to.Name, "event", e.ID, "action", e.Action, "error", err)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return false
}

// flush tries each unsent event and each waiting event once.
func (n *Notifier) flush(ctx context.Context, to *endpoint, unsent []Event) {
	ctx, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	for _, e := range unsent {
		n.last(ctx, to, e)
	}
	for {
		select {
		case e := <-to.waiting:
			n.last(ctx, to, e)
		default:
			return
		}
	}
}

// [Notifier.last] tries to send an event once, and drops the event if that fails.
func (n *Notifier) last(ctx context.Context, to *endpoint, e Event) {
	if _, err := to.post(ctx, e); err != nil {
		n.count(to, "dropped")
		return
	}
	n.count(to, "sent")
}

// post sends one event. retry reports whether another try could succeed.
func (to *endpoint) post(ctx context.Context, e Event) (retry bool, err error) {
	body, err := json.Marshal(map[string][]Event{"events": {e}})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, to.Timeout)
	defer cancel()
	resp, err := to.Do(ctx, to.client, MediaType, body)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be reused
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return false, nil
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true, fmt.Errorf("status %d", code)
	default:
		return false, fmt.Errorf("status %d", code)
	}
}
