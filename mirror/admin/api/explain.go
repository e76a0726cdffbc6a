package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Explanation has the facts about an image, and the result that a pull of the image would have now.
type Explanation struct {
	// Name is the name of the image with its upstream.
	Name string `json:"name"`
	// Time is when dray made the explanation. All fields below may have changed since.
	Time   time.Time       `json:"time"`
	Route  ExplainedRoute  `json:"route"`
	Caller ExplainedCaller `json:"caller"`
	// Tag describes the tag. It is nil if the name has a digest.
	Tag *ExplainedTag `json:"tag,omitempty"`
	// Digest is the digest of the manifest that the name refers to, or empty if dray does not know it.
	Digest digest.Digest   `json:"digest,omitempty"`
	Parts  []ExplainedPart `json:"parts"`
	Pull   ExplainedPull   `json:"pull"`
	// Upstream is the state of the upstream. It is nil if the content is stored in dray alone.
	Upstream *ExplainedUpstream `json:"upstream,omitempty"`
	// LastPull is the last pull of the image by a client. Of the requests for the image and its parts,
	// Misses has the newest that failed or needed more than the cache. Verdict is the verdict on the
	// last checked push of the image. A nil field is not known.
	LastPull *LastPull `json:"last_pull,omitempty"`
	Misses   Misses    `json:"misses"`
	Verdict  *Verdict  `json:"verdict,omitempty"`
}

// ExplainedRoute says which repository a name refers to, and why.
type ExplainedRoute struct {
	Listener string `json:"listener"`
	Upstream string `json:"upstream"`
	// Registry is the registry's own name, and Remote the repository's name at the registry.
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Remote     string `json:"remote"`
	// Rule is the rule that selected the upstream: prefix, host, upstream (by its name) or first
	// (nothing in the name selects an upstream). Word is the part of the name that the rule matched.
	Rule string `json:"rule"`
	Word string `json:"word,omitempty"`
	// BuildCaches is set if the name means a build cache. Upstream, Registry, Repository and Remote
	// then describe the hosted repository that stores it.
	BuildCaches bool `json:"build_caches,omitempty"`
	// Refused is why clients may not name the repository, or empty if they may name it.
	Refused string `json:"refused,omitempty"`
}

// ExplainedCaller says what a caller may do.
type ExplainedCaller struct {
	// User is empty for a caller without credentials.
	User string `json:"user,omitempty"`
	// Repository is the repository's name in the rules of auth.
	Repository string           `json:"repository"`
	Rights     []ExplainedRight `json:"rights"`
}

// ExplainedRight is the decision about one right.
type ExplainedRight struct {
	Action  string `json:"action"`
	Allowed bool   `json:"allowed"`
	// OnlyHere says that only clients on the machine of dray have the right.
	OnlyHere bool `json:"only_here,omitempty"`
	// Rule is the index of the rule that grants the right. The first rule of auth has the index 0.
	// Rule is nil if no rule decided.
	Rule *int `json:"rule,omitempty"`
	// Why is a clause that gives the reason.
	Why string `json:"why"`
}

// Freshness says how dray may use the fact about a tag.
type Freshness string

// The states of a fact about a tag.
const (
	TagUnknown  Freshness = "unknown"  // there is no fact
	TagQueued   Freshness = "queued"   // a push of the tag has not been forwarded yet
	TagFresh    Freshness = "fresh"    // the fact is the answer
	TagUpdating Freshness = "updating" // the fact is the answer, and dray asks the upstream in the background
	TagStale    Freshness = "stale"    // the fact is the answer only if the upstream fails
	TagExpired  Freshness = "expired"  // the fact is too old to be the answer
	TagLost     Freshness = "lost"     // the manifest that the fact names is not here any more
	TagAbsent   Freshness = "absent"   // the upstream answered "not found", which dray still believes
	TagHosted   Freshness = "hosted"   // the tag is stored in dray alone
)

// ExplainedTag is the meaning of a tag for a client that accepts certain media types.
type ExplainedTag struct {
	State Freshness `json:"state"`
	// Digest is the last known meaning of the tag.
	Digest digest.Digest `json:"digest,omitempty"`
	// Asked is when dray asked the upstream about the tag.
	Asked time.Time `json:"asked,omitzero"`
	// Fresh, Updating and Stale are times. Until Fresh, dray serves the answer without asking the
	// upstream. Until Updating, dray serves the answer and asks the upstream in the background. Until
	// Stale, dray serves the answer if the upstream fails.
	Fresh    time.Time `json:"fresh_until,omitzero"`
	Updating time.Time `json:"updating_until,omitzero"`
	Stale    time.Time `json:"stale_until,omitzero"`
	// Absent is the time until which dray believes a "not found". Reason is the upstream's text.
	Absent time.Time `json:"absent_until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// ExplainedPart is a manifest or a blob of an image.
type ExplainedPart struct {
	// Kind is index, manifest, config or layer.
	Kind      string        `json:"kind"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type,omitempty"`
	Platform  string        `json:"platform,omitempty"`
	// Size is in bytes, and -1 if it is not known.
	Size int64 `json:"size"`
	// Where lists the places that have the bytes: memory, disk, queue, staging, arriving (a fetch of
	// the bytes is under way), bucket. dray looks in the bucket only if the bytes are not here. Where
	// is empty if no place has the bytes.
	Where []string `json:"where"`
	// Shared says that the places in Where have the bytes, but that the upstream has not confirmed
	// them for this repository.
	Shared bool `json:"shared,omitempty"`
	// Absent is the text of the upstream's "not found". It is empty if there is no such answer, or if
	// dray no longer believes it.
	Absent string `json:"absent,omitempty"`
	// Blob describes the bytes on disk.
	Blob *Blob `json:"blob,omitempty"`
	// Unknown says that the manifest is not here, so the parts that it names are not known.
	Unknown bool `json:"unknown,omitempty"`
	// Unavailable says that a pull needs the upstream, but dray does not ask the upstream now, because
	// the upstream fails.
	Unavailable bool `json:"unavailable,omitempty"`
	// Requests counts the requests to the upstream that a pull of this part would cost.
	Requests int `json:"requests"`
}

// Serving is the kind of answer that a pull would get.
type Serving string

// The results of a pull.
const (
	ServeCache    Serving = "cache"       // content that is here
	ServeUpdating Serving = "updating"    // content that is here, while dray asks the upstream in the background
	ServeOrigin   Serving = "origin"      // the answer of the upstream
	ServeConfirm  Serving = "confirmed"   // content that is here, if the upstream confirms it
	ServeStale    Serving = "stale"       // old content that is here, because the upstream fails
	ServeAbsent   Serving = "not found"   // the last "not found" of the upstream
	ServeRefused  Serving = "refused"     // an error: the caller may not pull, or may not name the repository
	ServeDown     Serving = "unavailable" // an error: the upstream fails, so dray does not ask it
)

// ExplainedPull says what the next pull would get, and what it would cost. It assumes that the
// client has no part of the image and gets each part once, and that the upstream answers as before.
type ExplainedPull struct {
	Serves Serving `json:"serves"`
	// Fallback is the fallback that would answer now in place of the upstream of the Route. It is
	// empty if none would. Other fallbacks may answer for some of the parts: see Requests.
	Fallback string `json:"fallback,omitempty"`
	// Why is a sentence with the reason if the pull is refused or fails, or gets old content.
	Why string `json:"why,omitempty"`
	// Platforms are the platforms of the client. An empty list means all platforms.
	Platforms []string `json:"platforms,omitempty"`
	// Requests are the requests to the upstream. Each may be redirected. Requests for tokens are not
	// included.
	Requests []ExplainedRequest `json:"requests"`
	// Count is the number of requests, and Bytes the number of bytes that the upstream would send.
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
	// Open says that more requests may follow, because the parts of the image are not known yet.
	Open bool `json:"open,omitempty"`
}

// ExplainedRequest is a request to an upstream.
type ExplainedRequest struct {
	// Upstream is the upstream of the Route, or a fallback.
	Upstream string `json:"upstream"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	// Count is the number of such requests. It is above 1 for a blob that is fetched in parts.
	Count int `json:"count"`
	// Bytes is the size of the answers to these requests; -1 if it is not known.
	Bytes int64 `json:"bytes"`
	// Background says that no client waits for the answer.
	Background bool `json:"background,omitempty"`
	// Why is a clause that gives the reason.
	Why string `json:"why"`
}

// ExplainedUpstream is the state of an upstream.
type ExplainedUpstream struct {
	// Down is the reason why dray does not ask the upstream now, or empty if dray asks the upstream.
	// Until is when dray asks it again.
	Down  string    `json:"down,omitempty"`
	Until time.Time `json:"until,omitzero"`
	// Failures counts the requests that failed one after another, and Last is the last error.
	Failures int    `json:"failures"`
	Last     string `json:"last,omitempty"`
	// Operations has the rate of each kind of request that a pull may send to the upstream. Quota is
	// nil if the registry states no quota.
	Operations []ExplainedOperation `json:"operations"`
	Quota      *ExplainedQuota      `json:"quota,omitempty"`
}

// ExplainedOperation is the rate of one kind of request.
type ExplainedOperation struct {
	Name string `json:"name"`
	// PerSecond is the present limit of requests per second, and Ceiling the usual limit; 0 means no
	// limit.
	PerSecond float64 `json:"per_second"`
	Ceiling   float64 `json:"ceiling"`
	// Waiting counts the requests that wait to be sent.
	Waiting int `json:"waiting"`
	// Paused is the time until which dray sends no request; it is zero if there is no pause.
	Paused time.Time `json:"paused_until,omitzero"`
	Last   string    `json:"last,omitempty"`
}

// ExplainedQuota is the quota of pulls that a registry states.
type ExplainedQuota struct {
	Limit     int `json:"limit"`
	Remaining int `json:"remaining"`
	// Seconds is the length of the window in which the registry counts; 0 if it is not known.
	Seconds float64   `json:"seconds"`
	Source  string    `json:"source,omitempty"`
	Asked   time.Time `json:"asked"`
	// Reserved says that dray uses the rest of the quota for clients, and not for background work.
	Reserved bool `json:"reserved,omitempty"`
}
