package api

import "time"

// Queued is what was acknowledged to clients and is not at its registry.
type Queued struct {
	Pushes []QueuedPush `json:"pushes"`
}

// QueuedPush is one push, in the order in which they were acknowledged.
type QueuedPush struct {
	ID         uint64 `json:"id"`
	State      string `json:"state"` // waiting, forwarding or failed
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	Digest     string `json:"digest"`
	User       string `json:"user,omitempty"`
	// Bytes of the manifest and of what it brings along.
	Bytes    int64     `json:"bytes"`
	Accepted time.Time `json:"accepted"`
	Attempts int       `json:"attempts"`
	// Next is when it is tried again, where it was tried.
	Next time.Time `json:"next,omitzero"`
	// Error of the last attempt, or the last failure within the attempt that is under way.
	Error string `json:"error,omitempty"`
	// Overtaken says that the tag was pushed again since: it cannot be tried again.
	Overtaken bool `json:"overtaken,omitempty"`
}

// queueID names a push to the API.
type QueueID struct {
	ID uint64 `json:"id"`
}
