package mirror

import (
	"crypto/rand"

	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// cause is the request that brought something about, as events tell of it.
type cause struct {
	request notify.Request
	// base is the address of the listener, and q what was asked for there.
	base string
	q    oci.Request
}

func (x *exchange) cause() cause {
	return cause{
		request: notify.Request{ID: rand.Text(), Addr: x.r.RemoteAddr, Host: x.r.Host, Method: x.r.Method, UserAgent: x.r.UserAgent()},
		base:    x.base(), q: x.q,
	}
}

// url is where a manifest can be got, by its digest.
func (c cause) url(d digest.Digest) string {
	if d == "" || c.q.Kind != oci.KindManifest {
		return ""
	}
	q := c.q
	q.Ref, q.Tags = oci.Reference{Digest: d}, nil
	return c.base + q.Path()
}

// tell tells who wants to know that something happened.
func (m *Mirror) tell(action string, up *Upstream, user string, by cause, to notify.Target) {
	if m.onEvent == nil {
		return
	}
	if action == notify.Push {
		to.URL = by.url(to.Digest)
	}
	m.onEvent(notify.Event{Action: action, Upstream: up.Name, Target: to, Request: by.request, Actor: notify.Actor{Name: user}})
}

// tellVerdict tells who wants to know of a verdict.
func (m *Mirror) tellVerdict(r *pipeline.Report, by cause) {
	if m.onEvent == nil {
		return
	}
	m.onEvent(notify.Event{
		Action: notify.Verdict, Upstream: r.Upstream, Request: by.request, Actor: notify.Actor{Name: r.User},
		Target: notify.Target{MediaType: r.MediaType, Digest: r.Digest, Repository: r.Repository, Tag: r.Tag},
		Verdict: &notify.Outcome{
			Result: r.Outcome(), Checks: r.Checks, Findings: len(r.Findings), Unknowns: len(r.Unknowns), Rules: r.Broken(), Report: by.base + reportPath + r.ID,
		},
	})
}
