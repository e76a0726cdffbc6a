package gate

import (
	"dray/mirror/notify"
	"dray/mirror/pipeline"
)

// Events sends events to the operator's services, if there are any.
type Events struct{ on func(notify.Event) }

// Emit sends the event that a user has pushed an image, or deleted an image or a blob, at an
// upstream.
func (e Events) Emit(action, upstream, user string, by notify.Cause, to notify.Target) {
	if e.on == nil {
		return
	}
	if action == notify.Push {
		to.URL = by.ManifestURL(to.Digest)
	}
	e.on(notify.Event{Action: action, Upstream: upstream, Target: to, Request: by.Request, Actor: notify.Actor{Name: user}})
}

func (e Events) emitVerdict(r *pipeline.Report, by notify.Cause) {
	if e.on == nil {
		return
	}
	e.on(notify.Event{
		Action: notify.Verdict, Upstream: r.Upstream, Request: by.Request, Actor: notify.Actor{Name: r.User},
		Target: notify.Target{MediaType: r.MediaType, Digest: r.Digest, Repository: r.Repository, Tag: r.Tag},
		Verdict: &notify.Outcome{
			Result: r.Outcome(), Checks: r.Checks, Findings: len(r.Findings), Unknowns: len(r.Unknowns), Rules: r.Broken(), Report: by.ReportURL(r.ID),
		},
	})
}
