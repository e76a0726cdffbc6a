package explain

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/mirror/admin/api"
	"dray/mirror/identity"
	"dray/mirror/inventory"
	"dray/mirror/live"
	"dray/mirror/past"
	"dray/mirror/pipeline"
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/upstream"
	"dray/upstream/oci"
)

// Registry has the parts that pace, refuse and make the requests to one upstream.
type Registry struct {
	Breaker *upstream.Breaker
	Limiter *upstream.Limiter
	Client  *upstream.Client
}

// Listener is a listener, with the host names and addresses by which clients reach it.
type Listener struct {
	*request.Listener
	Own []string
}

// Options are the parts of an Explainer.
type Options struct {
	Repositories *repository.Store
	Pull         *pull.Puller
	Cache        *cache.Cache
	Listeners    []Listener
	// Registries has the parts of each upstream, by its name. It lacks the upstreams of hosted
	// repositories.
	Registries map[string]Registry
	// Hosted yields the manifests of hosted repositories.
	Hosted iter.Seq[inventory.Hosted]
	// Live has the pulls under way. Past has the ended pulls and the misses. Both may be nil.
	Live *live.Table
	Past *past.Past
	// Reports lists the newest reports on pushes, newest first.
	Reports func() []*pipeline.Report
}

// Explainer explains the names of images.
type Explainer struct{ o Options }

// New returns an Explainer.
func New(o Options) *Explainer { return &Explainer{o} }

// Query is a name to explain, and a client that pulls it.
type Query struct {
	// Name is the name of an image, as clients write it.
	Name string
	// Listener is the name of the listener. If Listener is empty, Explain prefers a listener with a
	// route that Name selects.
	Listener string
	// User is the name of the client's user. Empty means a client without credentials.
	User string
	// Platforms are the platforms of the client, by which the client chooses manifests of an index. If
	// Platforms is empty, Explain follows all manifests of the index.
	Platforms []string
	// Accept has the media types that the client accepts. Empty means all types: containerd accepts
	// all.
	Accept []string
}

// Explain explains the name of an image. Its errors have codes, such as api.CodeNotFound.
func (e *Explainer) Explain(ctx context.Context, q Query) (api.Explanation, error) {
	l, m, err := e.meaning(q)
	if err != nil {
		return api.Explanation{}, err
	}
	up := e.o.Repositories.Upstream(m.Upstream)
	if up == nil {
		return api.Explanation{}, api.Errorf(api.CodeInternal, "the upstream %q is missing", m.Upstream)
	}
	on, err := platforms.ParseAll(q.Platforms)
	if err != nil {
		return api.Explanation{}, api.Errorf(api.CodeInvalid, "platform: %v", err)
	}
	repo := e.o.Repositories.Repo(up, m.Repo)
	named := repo
	out := api.Explanation{
		Name: nameOf(repo, m.Reference), Time: time.Now().UTC(), Parts: []api.ExplainedPart{},
		Route: api.ExplainedRoute{
			Listener: l.Name, Upstream: up.Name, Registry: up.Registry, Repository: repo.Name, Remote: repo.Remote().Name,
			Rule: string(m.Rule), Word: m.Word,
		},
		Caller: caller(l.Listener, up, m.Name, q.User),
	}
	out.Pull = api.ExplainedPull{Platforms: q.Platforms, Requests: []api.ExplainedRequest{}}
	if m.Refusal != nil {
		out.Route.Refused = oci.AsError(m.Refusal).Message
	}
	if to, ok := repo.BuildCaches(); ok {
		if _, stored := e.hosted(to, m.Reference); stored {
			repo, out.Route.BuildCaches = to, true
			out.Route.Upstream, out.Route.Registry, out.Route.Repository, out.Route.Remote = to.Up.Name, to.Up.Registry, to.Name, to.Remote().Name
		}
	}
	w := e.walk(ctx, &out, repo, l.Listener, q, on)
	if err := w.explain(m.Reference); err != nil {
		return api.Explanation{}, err
	}
	e.remember(&out, named, m.Reference)
	return out, nil
}

func nameOf(r repository.Repo, ref oci.Reference) string {
	if ref.ByDigest() {
		return r.Up.Name + "/" + r.Name + "@" + ref.Digest.String()
	}
	return r.Up.Name + "/" + r.Name + ":" + ref.Tag
}

// meaning returns the listener through which a client would pull the name, and the meaning of the
// name at this listener. It prefers a listener with a route that the name selects. At other
// listeners, the name reaches an upstream only by the default route (route.First).
func (e *Explainer) meaning(q Query) (Listener, route.Meaning, error) {
	if d, err := oci.ParseDigest(q.Name); err == nil {
		return Listener{}, route.Meaning{}, api.Errorf(api.CodeInvalid, "a digest alone names no repository; write NAME@%s", d)
	}
	var first error
	var found *Listener
	var means route.Meaning
	for i, l := range e.o.Listeners {
		if q.Listener != "" && q.Listener != l.Name {
			continue
		}
		names := *l.Routes
		names.Own = l.Own
		m, err := names.Explain(q.Name)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		if found == nil || means.Rule == route.First && m.Rule != route.First {
			found, means = &e.o.Listeners[i], m
		}
	}
	switch {
	case found != nil:
		return *found, means, nil
	case first != nil:
		return Listener{}, means, api.Errorf(api.CodeInvalid, "%s", oci.AsError(first).Message)
	}
	return Listener{}, means, api.Errorf(api.CodeNotFound, "no listener is named %q", q.Listener)
}

// [Explainer.hosted] returns the digest of the manifest that ref names in a hosted repository, or
// false if there is none.
func (e *Explainer) hosted(r repository.Repo, ref oci.Reference) (digest.Digest, bool) {
	for i := range e.o.Hosted {
		if i.Upstream == r.Up.Name && i.Repo == r.Name && (i.Digest == ref.Digest || ref.Tag != "" && slices.Contains(i.Tags, ref.Tag)) {
			return i.Digest, true
		}
	}
	return "", false
}

// caller returns the rights of a user in a repository.
func caller(l *request.Listener, up *repository.Upstream, name, user string) api.ExplainedCaller {
	c := api.ExplainedCaller{User: user, Repository: name}
	for _, action := range []identity.Action{identity.Pull, identity.Push, identity.Delete} {
		g := l.Policy.Explain(identity.Principal{Name: user}, identity.Need{Action: action, Repository: name})
		switch {
		case action == identity.Push && up.Sink == nil, action == identity.Delete && up.Deleter == nil:
			g = identity.Grant{Rule: -1, Why: "the upstream is not configured to take it"}
		}
		r := api.ExplainedRight{Action: string(action), Allowed: g.Allowed, OnlyHere: g.OnlyHere, Why: g.Why}
		if g.Rule >= 0 {
			r.Rule = &g.Rule
		}
		c.Rights = append(c.Rights, r)
	}
	return c
}

// state describes an upstream. It returns nil if the repository is hosted.
func (e *Explainer) state(r repository.Repo) *api.ExplainedUpstream {
	registry, ok := e.o.Registries[r.Up.Name]
	if !ok {
		return nil
	}
	return registry.State(r.Remote().Name)
}

// State describes the state of an upstream for requests to a repository. An empty name means any
// repository.
func (r Registry) State(repository string) *api.ExplainedUpstream {
	b, admission := r.Breaker.State(), r.Breaker.Foresee(repository, false)
	s := &api.ExplainedUpstream{Failures: b.Failures, Down: admission.Refusal, Operations: []api.ExplainedOperation{}}
	if s.Down != "" {
		s.Until = admission.Until.UTC()
	}
	if last := cmp.Or(admission.Last, b.Last, b.Problem); last != nil {
		s.Last = last.Error()
	}
	for _, o := range r.Limiter.Reads() {
		x := api.ExplainedOperation{Name: o.Name, PerSecond: o.PerSecond, Ceiling: o.Ceiling, Waiting: o.Waiting, Last: o.LastError}
		if o.PausedUntil.After(time.Now()) {
			x.Paused = o.PausedUntil.UTC()
		}
		s.Operations = append(s.Operations, x)
	}
	if q, ok := r.Limiter.Quota(); ok {
		s.Quota = &api.ExplainedQuota{
			Limit: q.Limit, Remaining: q.Remaining, Seconds: q.Window.Seconds(), Source: q.Source, Asked: q.ObservedAt.UTC(), Reserved: q.Reserved,
		}
	}
	return s
}
