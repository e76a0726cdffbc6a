package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// MissCause says why a request needed more than the cache.
type MissCause string

// The causes of a [Miss]. In the comments, "it" is the content that the client requested.
const (
	MissNew         MissCause = "new"         // nothing was known of it in this repository
	MissExpired     MissCause = "expired"     // the last answer about the tag, which dray got at Since, was too old
	MissEvicted     MissCause = "evicted"     // it was here until Since, when it was evicted
	MissRemoved     MissCause = "removed"     // it was here until Since, when it was removed: by an operator, or because nothing needed it
	MissDamaged     MissCause = "damaged"     // it was here until Since, when its bytes were found to be wrong
	MissLost        MissCause = "lost"        // it was here once, or at a mirror on the same Redis; dray does not know why it is not here
	MissArriving    MissCause = "arriving"    // dray was fetching it for another request
	MissUncached    MissCause = "uncached"    // the cache could not store it
	MissUnconfirmed MissCause = "unconfirmed" // it was here, and the upstream had to confirm it for this repository or for this push
	MissAbsent      MissCause = "absent"      // the upstream had answered "not found" at Since, so dray did not ask again
	MissRefused     MissCause = "refused"     // the request was refused before dray looked for anything
)

// Miss is a request that failed or needed more than the cache.
type Miss struct {
	// At is when the request ended, and Seconds how long it took.
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	// RequestID is the ID of the request in its answer and in the log.
	RequestID string `json:"request_id"`
	Requester
	Method string `json:"method"`
	// Kind is manifest, blob, or another kind of request.
	Kind string `json:"kind"`
	MissTarget
	// Status is the status of the answer, and Bytes is how many bytes of its body were sent.
	// Source is where these bytes came from, in the words of X-Cache.
	Status int    `json:"status"`
	Bytes  int64  `json:"bytes"`
	Source string `json:"source,omitempty"`
	// Cause is why the request needed more than the cache. It is empty if only Error gives the reason.
	Cause MissCause `json:"cause,omitempty"`
	// Since is the time of the event that the Cause names; zero if there is no such time.
	Since time.Time `json:"since,omitzero"`
	// Asked lists upstream requests that this request has started. More counts those that Asked does
	// not list.
	Asked []MissRequest `json:"asked"`
	More  int           `json:"more,omitempty"`
	// Joined says that another request asked the upstream, and this request shared the answer.
	Joined bool `json:"joined,omitempty"`
	// Error is the error of the request. Stale is the error of the upstream if the client got an old
	// answer because of that error.
	Error string `json:"error,omitempty"`
	Stale string `json:"stale,omitempty"`
}

// MissTarget is the content that a client asked for.
type MissTarget struct {
	Upstream   string `json:"upstream,omitempty"`
	Repository string `json:"repository,omitempty"`
	// InsteadOf is the upstream that the client asked for, if a fallback answered. Upstream is then
	// the fallback.
	InsteadOf string        `json:"instead_of,omitempty"`
	Reference string        `json:"reference,omitempty"`
	Digest    digest.Digest `json:"digest,omitempty"`
}

// Requester is the client that has sent a request.
type Requester struct {
	Listener string `json:"listener"`
	// Client is the client's address. User is its user name, which is empty for an anonymous client.
	Client string `json:"client"`
	User   string `json:"user,omitempty"`
	Agent  string `json:"agent,omitempty"`
}

// MissRequest is a request to an upstream or to its storage.
type MissRequest struct {
	At     time.Time `json:"at"`
	Method string    `json:"method"`
	Host   string    `json:"host"`
	Path   string    `json:"path"`
	// Status is 0 if there was no answer. Error then gives the reason.
	Status  int     `json:"status"`
	Error   string  `json:"error,omitempty"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Misses lists the newest misses.
type Misses struct {
	Items []Miss `json:"items"`
	// Since is the time when dray started or, if dray has forgotten misses, when the last of these
	// ended. dray remembers all misses that ended after Since.
	Since time.Time `json:"since"`
}

// LastPull is the last pull of an image by a client.
type LastPull struct {
	// At is the time of the last request of the pull. Active says that the pull is under way.
	At     time.Time `json:"at"`
	Active bool      `json:"active,omitempty"`
	Client string    `json:"client"`
	User   string    `json:"user,omitempty"`
	Agent  string    `json:"agent,omitempty"`
	// Reference is the tag or digest that the client named.
	Reference string `json:"reference,omitempty"`
	Digest    string `json:"digest,omitempty"`
	// Bytes counts the bytes sent to the client, and Sources the bytes from each source.
	Bytes   int64            `json:"bytes"`
	Sources map[string]int64 `json:"sources"`
	// Failures counts the requests that failed.
	Failures int `json:"failures,omitempty"`
}

// Verdict is the verdict on the last checked push to a name.
type Verdict struct {
	At time.Time `json:"at"`
	// Outcome is pass, reject or unknown. Unknown means that the push was rejected only because a
	// check had no result.
	Outcome string        `json:"outcome"`
	Checks  string        `json:"checks"`
	User    string        `json:"user,omitempty"`
	Tag     string        `json:"tag,omitempty"`
	Digest  digest.Digest `json:"digest,omitempty"`
	// Message is the message that the client got.
	Message string `json:"message,omitempty"`
	// Report is the path of the report on the listeners that accept pushes.
	Report string `json:"report,omitempty"`
}
