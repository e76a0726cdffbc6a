package gate

import (
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// Cause is the request that brought something about, as events tell of it.
type Cause struct {
	Request notify.Request
	// Base is the address of the listener, and Query what was asked for there.
	Base  string
	Query oci.Request
}

// url is where a manifest can be got, by its digest.
func (c Cause) url(d digest.Digest) string {
	if d == "" || c.Query.Kind != oci.KindManifest {
		return ""
	}
	q := c.Query
	q.Ref, q.Tags = oci.Reference{Digest: d}, nil
	return c.Base + q.Path()
}

// Events sends events to the operator's services, where there are any.
type Events struct{ on func(notify.Event) }

// Tell sends the event that a user has pushed or deleted something at an upstream.
func (e Events) Tell(action, upstream, user string, by Cause, to notify.Target) {
	if e.on == nil {
		return
	}
	if action == notify.Push {
		to.URL = by.url(to.Digest)
	}
	e.on(notify.Event{Action: action, Upstream: upstream, Target: to, Request: by.Request, Actor: notify.Actor{Name: user}})
}

// tellVerdict sends the event of a verdict.
func (e Events) tellVerdict(r *pipeline.Report, by Cause) {
	if e.on == nil {
		return
	}
	e.on(notify.Event{
		Action: notify.Verdict, Upstream: r.Upstream, Request: by.Request, Actor: notify.Actor{Name: r.User},
		Target: notify.Target{MediaType: r.MediaType, Digest: r.Digest, Repository: r.Repository, Tag: r.Tag},
		Verdict: &notify.Outcome{
			Result: r.Outcome(), Checks: r.Checks, Findings: len(r.Findings), Unknowns: len(r.Unknowns), Rules: r.Broken(), Report: by.Base + ReportPath + r.ID,
		},
	})
}
