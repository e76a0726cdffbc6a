package api

import "time"

// Live has the pulls and pushes under way.
type Live struct {
	At     time.Time  `json:"at"`
	Pulls  []LivePull `json:"pulls"`
	Pushes []LivePush `json:"pushes"`
	// Displaced counts the pulls and pushes that dray has removed early from this list, because the
	// list was full. It counts from the start of dray.
	Displaced uint64 `json:"displaced"`
}

// LiveState says whether a pull or a push goes on.
type LiveState string

// The states.
const (
	LiveActive LiveState = "active" // a request is under way
	LiveIdle   LiveState = "idle"   // no request is under way, and the last one ended less than a minute ago
)

// LiveEntry has the fields that pulls and pushes share.
type LiveEntry struct {
	// ID identifies the pull or push in all answers of the same process.
	ID uint64 `json:"id"`
	// Client is the client's address. User is its user name, which is empty for an anonymous client.
	// Agent is the User-Agent of the first request.
	Client     string `json:"client"`
	User       string `json:"user,omitempty"`
	Agent      string `json:"agent,omitempty"`
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	// Reference is the tag or digest that the client named. It is empty if the client has not named
	// one yet.
	Reference string    `json:"reference,omitempty"`
	State     LiveState `json:"state"`
	Began     time.Time `json:"began"`
	// Last is the time of the last request, to the second.
	Last time.Time `json:"last"`
	// Rate is in bytes per second, over the last 5 seconds.
	Rate int64 `json:"rate"`
	// Failures counts the requests that failed. Error is the last error. RequestID is the ID of the
	// request with this error, as in the log.
	Failures  int    `json:"failures,omitempty"`
	Error     string `json:"error,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// LivePull is one image on its way to one client.
type LivePull struct {
	LiveEntry
	// Digest is the digest of the manifest that the client named. Often that manifest is an index.
	Digest    string     `json:"digest,omitempty"`
	MediaType string     `json:"media_type,omitempty"`
	Layers    LiveLayers `json:"layers"`
	// Bytes counts the bytes sent to the client, and Sources the bytes from each source.
	Bytes   int64            `json:"bytes"`
	Sources map[string]int64 `json:"sources"`
}

// LiveLayers says how many layers of an image a client has asked for. A client does not ask for the
// layers that it has.
type LiveLayers struct {
	Asked int `json:"asked"`
	// Of is the number of layers of the image; 0 if it is not known.
	Of int `json:"of"`
	// Bytes is the size of the layers that the client has asked for.
	Bytes int64 `json:"bytes"`
}

// LiveChecks is the state of the checks of a push.
type LiveChecks string

// The states of checks. The state of a push that is not checked is empty.
const (
	LiveChecksRunning LiveChecks = "running"
	LiveChecksPass    LiveChecks = "pass"
	LiveChecksReject  LiveChecks = "reject"
	LiveChecksUnknown LiveChecks = "unknown" // rejected only because a check had no result
)

// LivePush is one image on its way from one client.
type LivePush struct {
	LiveEntry
	// Digest is the digest of the last manifest that the client has pushed.
	Digest string `json:"digest,omitempty"`
	// Pushed is set when the client has pushed the manifest under a tag.
	Pushed bool `json:"pushed"`
	// Blobs counts the blobs that were received completely, or mounted.
	Blobs int `json:"blobs"`
	// Received counts the bytes of blobs and manifests from the client. Forwarded counts the bytes of
	// blobs that were sent to the upstream.
	Received  int64      `json:"received"`
	Forwarded int64      `json:"forwarded"`
	Checks    LiveChecks `json:"checks,omitempty"`
}
