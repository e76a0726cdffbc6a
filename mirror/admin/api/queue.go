package api

import "time"

// Queued lists the pushes that were acknowledged to clients but not forwarded.
type Queued struct {
	Pushes []QueuedPush `json:"pushes"`
}

// QueuedPush is a push in Queued. Pushes that were acknowledged earlier come first.
type QueuedPush struct {
	ID         uint64 `json:"id"`
	State      string `json:"state"` // waiting, forwarding or failed
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	Digest     string `json:"digest"`
	User       string `json:"user,omitempty"`
	// Bytes is the size of the manifest and of the push's blobs.
	Bytes    int64     `json:"bytes"`
	Accepted time.Time `json:"accepted"`
	Attempts int       `json:"attempts"`
	// Next is the time at which the next attempt is due. If Next is zero, the attempt has been due
	// since Accepted. For a failed push, Next means nothing.
	Next time.Time `json:"next,omitzero"`
	// Error is the newest error of any attempt. An attempt that is under way may have set it.
	Error string `json:"error,omitempty"`
	// Overtaken says that the tag was pushed again later. If this push has failed, it cannot be
	// retried.
	Overtaken bool `json:"overtaken,omitempty"`
}

// QueueID identifies a push.
type QueueID struct {
	ID uint64 `json:"id"`
}
