// Package fallback lets other upstreams answer a pull in place of one that does not answer, tells
// clients and metrics which one did, and remembers which one has sent what.
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

// header names the fallback that has answered in place of the upstream that the client
// asked for.
const header = "X-Dray-Fallback"

// Lender lets fallbacks answer in place of upstreams.
type Lender struct{ answers *prometheus.CounterVec }

// New returns a Lender for the requests to these upstreams.
func New(upstreams map[string]*repository.Upstream) *Lender {
	l := &Lender{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_fallback_answers_total",
		Help: "Answers that a fallback gave in place of an upstream, by upstream and fallback."}, []string{"upstream", "fallback"})}
	for name, up := range upstreams {
		for _, f := range up.Fallbacks {
			l.answers.WithLabelValues(name, f.To.Name)
		}
	}
	return l
}

// Collectors returns the metrics of fallbacks.
func (l *Lender) Collectors() []prometheus.Collector { return []prometheus.Collector{l.answers} }

// InTurn calls handle, which answers the request from x.Repo, or returns an error before it has
// sent anything. If the upstream of x.Repo does not answer, x.Repo becomes the repository at a
// fallback, and handle is called again ([repository.InTurn]). A client that asks what it may
// leave out of a push gets no answer of a fallback, because its push goes to the upstream.
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

// Lend remembers which fallback has sent a manifest, before the client asks for what the manifest
// names.
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

// LendListed remembers which fallback has sent a list of referrers. list is the digest of the list.
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

// listPatience bounds the time for a list at an upstream, if a fallback can be asked after it.
const listPatience = 5 * time.Second

// Patience returns a context for asking for a list of a repository. It ends early if a fallback can
// be asked afterwards.
func Patience(ctx context.Context, r repository.Repo) (context.Context, context.CancelFunc) {
	if !r.Up.Yields() {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, listPatience)
}
