package mirror

import (
	"net/http"
	"time"

	"dray/mirror/admin/api"
	"dray/mirror/identity"
	"dray/mirror/request"
	"dray/upstream/oci"
)

// remember records a request that failed or needed more than the cache, so that operators can look
// it up later. It leaves out usual requests, and requests that were not routed to an upstream.
func (l *Listener) remember(x *request.Request, err error, took time.Duration) {
	if x.Repo.Up == nil || usual(x, err) {
		return
	}
	at, instead := x.Repo, ""
	if x.Instead.Up != nil {
		instead, at.Name = x.Instead.Up.Name, x.Instead.Name
	}
	m := api.Miss{
		At: time.Now(), Seconds: took.Seconds(), RequestID: x.ID, Requester: api.Requester{Listener: l.Name, Client: identity.ClientAddr(x.R).String(), User: x.Caller.Name, Agent: x.R.UserAgent()},
		Method: x.R.Method, Kind: string(x.Q.Kind), MissTarget: api.MissTarget{Upstream: at.Up.Name, Repository: at.Name, InsteadOf: instead, Reference: x.Q.Ref.String()},
		Status: x.W.Status(), Bytes: x.W.Sent(), Source: x.Source,
	}
	m.Digest, _ = x.Content()
	if err != nil {
		m.Error = err.Error()
		if e := oci.AsError(err); x.Miss == nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
			m.Cause = api.MissRefused
		}
	}
	if x.Stale != nil {
		m.Stale = x.Stale.Error()
	}
	l.Mirror.observers.Past.Add(m, x.Miss)
}

// usual reports whether the request and its answer are part of the normal work of clients, so that
// operators need no explanation of them. Most clients send no credentials until the listener
// demands them. A push begins by asking which content the registry has, so "not found" is a usual
// answer.
func usual(x *request.Request, err error) bool {
	switch {
	case x.W.Status() == http.StatusUnauthorized:
		return x.R.Header["Authorization"] == nil
	case x.AsksToPush() && (x.Q.Kind == oci.KindBlob || x.Q.Ref.ByDigest()):
		return err == nil || oci.NotFound(err)
	}
	return false
}
