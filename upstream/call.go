package upstream

import (
	"cmp"
	"sync"
	"time"
)

// Repo names the repository that a request is about, and says how to send the request.
type Repo struct {
	Name string
	Call
}

// With returns r with the Call c.
func (r Repo) With(c Call) Repo {
	r.Call = c
	return r
}

// Call says how to send a request, including its retries. The zero value is for a request that
// a client waits for.
type Call struct {
	// Background, when not nil, marks the request as background work until the Urgency is raised.
	// Background work is sent after the requests of clients, and leaves a quarter of the Limiter's
	// slots free. It gets no manifests while the pull quota is nearly used up.
	Background *Urgency
	// OnRetry, when not nil, is called with each failure that another try may mend, even if no time is
	// left for another try. It must not block.
	OnRetry func(error)
	// Existing says that a write must not create its repository, because nobody has decided yet
	// whether the content may be stored.
	Existing bool
	// Asked, when not nil, records the requests.
	Asked *Asked
	// maxWait bounds how long the request waits in a Limiter's queue; 0 means the default (see
	// waitLimit).
	maxWait time.Duration
	// The number of earlier, failed attempts at the same question. [Breaker] defines what a question
	// is, and counts all attempts at it as one.
	before int
	// This function, if not nil, is called before the request goes to a host that the registry has
	// redirected to. If it returns an error, the request is not sent.
	onward func(host string) error
}

// backgroundWait bounds how long background work waits in a Limiter's queue.
const backgroundWait = 25 * time.Second

// Urgency turns background work into work that a client waits for.
type Urgency struct {
	urgent chan struct{}
	raise  func()
}

// NewUrgency returns an Urgency for one task.
func NewUrgency() *Urgency {
	urgent := make(chan struct{})
	return &Urgency{urgent: urgent, raise: sync.OnceFunc(func() { close(urgent) })}
}

// Raise makes all requests of the task count as requests of clients, including requests that
// already wait. It may be called more than once.
func (u *Urgency) Raise() { u.raise() }

// InBackground returns the Call for requests that no client will ever wait for.
func InBackground() Call { return Call{Background: NewUrgency()} }

// raised returns a channel that is closed when the request becomes urgent. For a request that never
// was background work, raised returns nil.
func (c Call) raised() <-chan struct{} {
	if c.Background == nil {
		return nil
	}
	return c.Background.urgent
}

// inBackground reports whether the request is background work now.
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

// waitLimit returns the longest time that the request may wait in a queue. defaultWait is the
// default for requests that clients wait for. The default for background work is backgroundWait.
func (c Call) waitLimit(defaultWait time.Duration) time.Duration {
	if c.Background != nil {
		defaultWait = backgroundWait
	}
	return cmp.Or(c.maxWait, defaultWait)
}

// observe passes a failure to OnRetry.
func (c Call) observe(err error) {
	if c.OnRetry != nil {
		c.OnRetry(err)
	}
}
