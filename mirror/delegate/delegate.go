// Package delegate lets one member of a fleet ask an upstream about a manifest, for all members.
//
// The names in the question determine which member asks, so all members choose the same one. The
// chosen member asks the upstream as it does for a client of its own, and records the answer in the
// facts, which all members share. The sender of the question reads these facts.
//
// Invariants:
//   - An answer of a member makes no content visible. The sender of the question reads the
//     visibility in the facts. It also checks the digest of the bytes.
//   - If a member gives no sign of life, or does not answer in time, the sender asks the upstream
//     itself. So a member that fails costs time, but it makes no question fail.
//   - A member never passes on a question that came from another member.
package delegate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/fleet"
)

const (
	questionPath = "/manifests/"
	blobPath     = "/blobs/"
	// maxQuestion and maxAnswer bound bodies, in bytes. An answer has the manifest in base64.
	maxQuestion = 64 << 10
	maxAnswer   = 8 << 20
	// maxAsked bounds the members that are asked whether they have a manifest.
	maxAsked = 16
)

// Question asks for the manifest that a tag or digest means at an upstream.
type Question struct {
	// Upstream is this member's name for the upstream. In a message between members, this field has
	// the identity of the upstream instead.
	Upstream string `json:"upstream"`
	// Repository and Reference name the manifest. Accept has the Accept lines of the client.
	Repository string   `json:"repository"`
	Reference  string   `json:"reference"`
	Accept     []string `json:"accept,omitempty"`
	// Held is the digest of a manifest that the sender of the question has. An answer with this digest
	// has no Data.
	Held digest.Digest `json:"held,omitempty"`
	// Background says that no client waits for the answer.
	Background bool `json:"background,omitempty"`
}

// Answer is the answer of a member to a Question.
type Answer struct {
	// Answered says that this is what the upstream answered, now or earlier, and that the facts have
	// it.
	Answered bool `json:"answered"`
	// Digest is the digest of the manifest, or empty if the upstream has no such manifest. Data has
	// the bytes of the manifest, or is empty if the sender of the question has them.
	Digest digest.Digest `json:"digest,omitempty"`
	Data   []byte        `json:"data,omitempty"`
}

// Delegate passes questions to other members, and answers their questions. A nil Delegate is for a
// mirror without a fleet, and asks nobody. All methods may be called concurrently.
type Delegate struct {
	fleet    *fleet.Fleet
	patience fleet.Patience
	log      *slog.Logger
	asked    *prometheus.CounterVec
}

// New returns the Delegate of a member, or nil if f is nil. New must be called before the fleet
// serves. answerer answers the questions of other members. In the questions that it gets, Upstream
// is this member's name for the upstream.
func New(f *fleet.Fleet, log *slog.Logger, answerer func(context.Context, Question) Answer) *Delegate {
	if f == nil {
		return nil
	}
	d := &Delegate{fleet: f, patience: fleet.PatienceOf(f), log: log, asked: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_fleet_manifest_questions_total",
		Help: "Questions about manifests that this member passed to the one member that asks the registry on behalf of the fleet, by result: answered, or self (that member did not answer, so this one asked the registry).",
	}, []string{"result"})}
	for _, result := range []string{"answered", "self"} {
		d.asked.WithLabelValues(result) // alerts look for an increase from 0
	}
	f.Handle(questionPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, answerer) }))
	return d
}

// Collectors returns the metrics of the questions.
func (d *Delegate) Collectors() []prometheus.Collector {
	if d == nil {
		return nil
	}
	return []prometheus.Collector{d.asked}
}

// peers returns the identity of an upstream, this member, and the other members that have the
// upstream.
func (d *Delegate) peers(upstream string) (identity string, self fleet.Member, others []fleet.Member) {
	self = d.fleet.Self()
	for _, u := range self.Upstreams.All() {
		if u.Name == upstream {
			identity = u.Identity
		}
	}
	if identity == "" {
		return "", self, nil
	}
	for _, m := range d.fleet.Live() {
		has := slices.ContainsFunc(m.Upstreams.All(), func(u fleet.Upstream) bool { return u.Identity == identity })
		if m.ID != self.ID && has {
			others = append(others, m)
		}
	}
	return identity, self, others
}

// chosen returns the member that asks the upstream for all members, and the identity of the
// upstream. self says whether this member is the chosen one.
func (d *Delegate) chosen(q Question) (to fleet.Member, identity string, self bool) {
	if d == nil {
		return to, "", true
	}
	identity, me, others := d.peers(q.Upstream)
	to = me
	if len(others) > 0 {
		to = fleet.Rendezvous(identity+" "+q.Repository+" "+q.Reference, append(others, me))
	}
	return to, identity, to.ID == me.ID
}

// Here reports whether this member is the one that asks the upstream.
func (d *Delegate) Here(q Question) bool {
	_, _, self := d.chosen(q)
	return self
}

// Ask passes a question to the member that asks the upstream for all members. ok is false if this
// member has to ask the upstream itself, because it is the chosen member, or because the chosen
// member has no answer.
func (d *Delegate) Ask(ctx context.Context, q Question) (a Answer, ok bool) {
	to, identity, self := d.chosen(q)
	if self {
		return a, false
	}
	q.Upstream = identity
	a, err := d.send(ctx, to, q)
	if err != nil || !a.Answered {
		d.asked.WithLabelValues("self").Inc()
		d.log.Debug("fleet: another member has no answer, so this one asks the upstream", "member", to.ID, "repository", q.Repository, "reference", q.Reference, "error", err)
		return Answer{}, false
	}
	d.asked.WithLabelValues("answered").Inc()
	return a, true
}

var (
	errSilent = errors.New("the member gives no sign of life")
	errLate   = errors.New("the member has not answered in time")
	errWrong  = errors.New("the member sent bytes that do not have their digest")
)

func (d *Delegate) send(ctx context.Context, to fleet.Member, q Question) (a Answer, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silent := time.AfterFunc(d.patience.Silence, func() { stop(errSilent) })
	defer silent.Stop()
	late := time.AfterFunc(d.patience.Begin, func() { stop(errLate) })
	defer late.Stop()
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://member"+questionPath, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	resp, err := d.fleet.Send(ctx, to, r)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return a, fmt.Errorf("the member answered %s", resp.Status)
		}
		err = json.NewDecoder(&alive{io.LimitReader(resp.Body, maxAnswer), func() { silent.Reset(d.patience.Silence) }}).Decode(&a)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause // even with an answer: when ctx ends, the member may answer without a result
	}
	if err == nil && len(a.Data) > 0 && !is(a.Digest, a.Data) {
		err = errWrong
		d.log.Warn("a member of the fleet sent a manifest that does not have its digest; check the memory of the member", "member", to.ID, "digest", a.Digest)
	}
	if err != nil {
		return Answer{}, err
	}
	return a, nil
}

// is reports whether d is the digest of raw.
func is(d digest.Digest, raw []byte) bool {
	return d.Validate() == nil && d.Algorithm().FromBytes(raw) == d
}

// alive is a body that calls [alive.sign] after each read that returns bytes.
type alive struct {
	io.Reader
	sign func()
}

// Read implements io.Reader.
func (a *alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.sign()
	}
	return n, err
}

// serve answers a question of a member. Until it has the answer, it sends spaces as signs of life.
// JSON ignores such spaces.
func (d *Delegate) serve(w http.ResponseWriter, r *http.Request, answer func(context.Context, Question) Answer) {
	var q Question
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q)
	if err != nil || r.Method != http.MethodPost {
		http.Error(w, "not a question of a member", http.StatusBadRequest)
		return
	}
	name, ok := d.named(q.Upstream)
	if !ok {
		http.Error(w, "no such upstream", http.StatusNotFound)
		return
	}
	q.Upstream = name
	to := http.NewResponseController(w)
	done := make(chan Answer, 1)
	go func() { done <- answer(r.Context(), q) }()
	tick := time.NewTicker(max(d.patience.Silence/3, time.Millisecond))
	defer tick.Stop()
	gone := false
	sign := func() {
		_, err := io.WriteString(w, " ")
		gone = errors.Join(err, to.Flush()) != nil
	}
	sign()
	for {
		select {
		case a := <-done:
			if !gone {
				_ = json.NewEncoder(w).Encode(a) // if this fails, the sender of the question notices
			}
			return
		case <-tick.C:
			if !gone {
				sign()
			}
		}
	}
}

// named returns this member's name for the upstream with the given identity.
func (d *Delegate) named(identity string) (name string, ok bool) {
	for _, u := range d.fleet.Self().Upstreams.All() {
		if u.Identity == identity && identity != "" {
			return u.Name, true
		}
	}
	return "", false
}

// Bytes asks other members for a manifest of an upstream. It returns nil if none of them sends the
// manifest in time, or if the manifest has more than limit bytes. The bytes have the right digest,
// but that does not make the manifest visible.
func (d *Delegate) Bytes(ctx context.Context, upstream string, want digest.Digest, limit int64) []byte {
	if d == nil {
		return nil
	}
	_, _, others := d.peers(upstream)
	others = others[:min(len(others), maxAsked)]
	ctx, cancel := context.WithTimeout(ctx, d.patience.Silence)
	defer cancel()
	found := make(chan []byte, len(others))
	for _, m := range others {
		go func() { found <- d.held(ctx, m, want, limit) }()
	}
	var raw []byte
	for range others { // waits for all members, so that no goroutine outlives the call
		if got := <-found; got != nil && raw == nil {
			raw = got
			cancel()
		}
	}
	return raw
}

// held asks one member for a manifest. It returns nil if the member does not send the right bytes,
// or sends more of them than the parameter most allows.
func (d *Delegate) held(ctx context.Context, m fleet.Member, want digest.Digest, most int64) []byte {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://member"+blobPath+want.String()+"?from=0", http.NoBody)
	if err != nil {
		return nil
	}
	resp, err := d.fleet.Send(ctx, m, r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil || resp.StatusCode != http.StatusOK || int64(len(raw)) > most || !is(want, raw) {
		return nil
	}
	return raw
}
