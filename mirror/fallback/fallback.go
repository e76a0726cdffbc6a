// Package fallback lets another upstream answer a pull if the upstream that the client named does
// not answer, or for some fallbacks (Fallback.NotFound) does not have the content. It tells clients
// and metrics which upstream answered, and records which upstream sent a manifest or list.
package fallback

import (
	"context"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/identity"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream/oci"
)

// header is the HTTP header that names the fallback from which an answer came.
const header = "X-Dray-Fallback"

// Lender lets fallbacks answer in place of upstreams.
type Lender struct{ answers *prometheus.CounterVec }

// New returns a Lender for requests to the given upstreams.
func New(upstreams map[string]*repository.Upstream) *Lender {
	l := &Lender{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_fallback_answers_total",
		Help: "Answers of a fallback in place of an upstream, by upstream and fallback."}, []string{"upstream", "fallback"})}
	for name, up := range upstreams {
		for _, f := range up.Fallbacks {
			l.answers.WithLabelValues(name, f.To.Name)
		}
	}
	return l
}

// Collectors returns the metrics of fallbacks.
func (l *Lender) Collectors() []prometheus.Collector { return []prometheus.Collector{l.answers} }

// InTurn calls handle, which answers the request from x.Repo. If the upstream of x.Repo does not
// answer, InTurn sets x.Repo to the repository at a fallback and calls handle again.
// [repository.InTurn] says when a fallback is asked after "not found", too, or is asked first. Once
// handle has begun an answer, InTurn asks no fallback. It also asks no fallback if the client may
// push and the request could be a check before a push: the push goes to the upstream, so the client
// must find out what the upstream has.
func (l *Lender) InTurn(ctx context.Context, x *request.Request, handle func() error) error {
	named := x.Repo
	if len(named.Up.Fallbacks) == 0 || x.AsksToPush() && x.May(identity.Push) {
		return handle()
	}
	may := func(u *repository.Upstream) bool { return x.Listener.Routes.Serves(u.Name, named.Name) }
	var broken error
	err := repository.InTurn(ctx, named, x.Q.Ref.Digest, may, func(r repository.Repo) error {
		x.W.Header().Del("Warning")
		x.W.Header().Del(header)
		x.Turn(r)
		err := handle()
		if err != nil && x.W.Started() {
			broken = err
			return nil
		}
		return err
	})
	if err != nil {
		x.W.Header().Del(header)
		x.Turn(named)
		return err
	}
	return broken
}

// Mark tells the client and the metrics that a fallback answers.
func (l *Lender) Mark(x *request.Request) {
	if x.Instead.Up == nil {
		return
	}
	name := x.Repo.Up.Name
	x.W.Header().Set(header, name)
	x.W.Header().Add("Warning", `199 dray "Answered by the fallback `+name+`"`)
	l.answers.WithLabelValues(x.Instead.Up.Name, name).Inc()
}

// Lend records which fallback has sent a manifest, so that requests for the content that the
// manifest names also go to that fallback.
func (l *Lender) Lend(x *request.Request, m *repository.Manifest) {
	if x.Instead.Up == nil {
		return
	}
	var names []oci.Child
	if man, err := m.Parse(); err == nil {
		names = man.Children()
	}
	repository.Lend(x.R.Context(), x.Repo, x.Instead, m.Digest, names)
}

// LendListed is Lend for a list of referrers. The parameter list is its digest.
func (l *Lender) LendListed(x *request.Request, list digest.Digest, all []json.RawMessage) {
	if x.Instead.Up == nil {
		return
	}
	var names []oci.Child
	for _, raw := range all {
		var d oci.Descriptor
		if json.Unmarshal(raw, &d) == nil && d.Digest.Validate() == nil {
			names = append(names, oci.Child{Descriptor: d, Manifest: true})
		}
	}
	repository.Lend(x.R.Context(), x.Repo, x.Instead, list, names)
}

// listPatience bounds how long dray waits for a list from an upstream, if it can ask a fallback
// afterwards.
const listPatience = 5 * time.Second

// Patience returns the context of a request for a list of a repository. If a fallback can be asked
// afterwards, the context ends after 5 seconds.
func Patience(ctx context.Context, r repository.Repo) (context.Context, context.CancelFunc) {
	if !r.Up.Yields() {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, listPatience)
}
