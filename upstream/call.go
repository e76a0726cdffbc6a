package upstream

import (
	"cmp"
	"sync"
	"time"
)

// Repo names a repository of the registry in a request, and says how the request is sent.
type Repo struct {
	Name string
	Call
}

// With returns the repository with another way to send requests about it.
func (r Repo) With(c Call) Repo {
	r.Call = c
	return r
}

// Call says how a request is sent, and again where it fails. The zero value is for what a client
// waits for.
type Call struct {
	// Background, when not nil, marks a request that no client waits for until it is raised: it
	// stands behind all others, leaves the last quarter of the places free, and is not sent while a
	// quota is nearly used up.
	Background *Urgency
	// OnRetry, when not nil, is called with each failure that a repetition is to absorb. It must
	// not block.
	OnRetry func(error)
	// patience bounds the time that the request stands in a Limiter's queue; 0 means what is usual
	// for it.
	patience time.Duration
}

// backgroundPatience is how long work that nobody waits for stands in a queue.
const backgroundPatience = 25 * time.Second

// Urgency lets work that began in the background become what somebody waits for.
type Urgency struct {
	urgent chan struct{}
	raise  func()
}

// NewUrgency returns an Urgency for one piece of work.
func NewUrgency() *Urgency {
	urgent := make(chan struct{})
	return &Urgency{urgent: urgent, raise: sync.OnceFunc(func() { close(urgent) })}
}

// Raise makes the requests of that work which still wait, and those that follow, ordinary ones. It
// may be called again.
func (u *Urgency) Raise() { u.raise() }

// InBackground is the way to send requests that no client will ever wait for.
func InBackground() Call { return Call{Background: NewUrgency()} }

// raised is closed once the request has become urgent; nil where that cannot happen.
func (c Call) raised() <-chan struct{} {
	if c.Background == nil {
		return nil
	}
	return c.Background.urgent
}

// inBackground reports whether nobody waits for the request, as things stand.
func (c Call) inBackground() bool {
	if c.Background == nil {
		return false
	}
	select {
	case <-c.Background.urgent:
		return false
	default:
		return true
	}
}

// waits is how long the request stands in a queue at most, where usual is the bound of those that
// clients wait for.
func (c Call) waits(usual time.Duration) time.Duration {
	if c.Background != nil {
		usual = backgroundPatience
	}
	return cmp.Or(c.patience, usual)
}

// observe tells the caller of a failure that a repetition is to absorb.
func (c Call) observe(err error) {
	if c.OnRetry != nil {
		c.OnRetry(err)
	}
}
