package auth

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// firstRefusal and lastRefusal bound the pause in which dray does not send a refused credential
	// again. The pause doubles with each refusal in a row. Docker Hub and Harbor lock accounts that
	// fail too often (harbor#22569).
	firstRefusal = 5 * time.Second
	lastRefusal  = 5 * time.Minute
	// trustedFor is how long dray trusts a credential that a token endpoint has accepted. In this
	// time, any number of requests may send the credential concurrently.
	trustedFor = time.Minute
	// forever replaces trustedFor at registries to which dray sends the credential as Basic
	// authentication.
	forever = time.Duration(1<<63 - 1)
	// confirmedFor is how long dray ignores further doubts after the registry has accepted a
	// credential that was in doubt or refused.
	confirmedFor = 5 * time.Second
)

// trust records whether one registry has accepted or refused its credential, and when.
type trust struct {
	asking crowd

	mu        sync.Mutex // guards the fields below; never held during a request
	username  string
	password  Secret
	accepted  time.Time
	confirmed time.Time     // when the credential was last accepted after a doubt or a refusal
	refusal   error         // nil unless the last answer was a refusal
	until     time.Time     // the end of the pause after the refusal
	pause     time.Duration // the length of that pause
}

// prove returns nil if the registry has accepted c, and this acceptance is younger than maxAge. If
// c was refused and the pause after the refusal is not over, prove returns the error of that
// refusal. Otherwise one caller calls verify, which sends c to the registry, while the other
// callers wait. After this call of verify, a waiting caller with another credential calls verify,
// too.
//
// doubted says that the caller has received a refusal that may concern c. prove sets suspect in the
// call of verify if doubted is set, or if the registry's last answer about c was a refusal. If
// doubted is set, an earlier acceptance counts only for confirmedFor, and only if it came from a
// call of verify with suspect set.
func (k *trust) prove(ctx context.Context, c Credential, maxAge time.Duration, doubted bool, verify func(ctx context.Context, suspect bool) error) error {
	for {
		suspect, known, err := k.known(c, maxAge, doubted)
		if known {
			return err
		}
		leader, err := k.asking.do(ctx, c.basic(), func(ctx context.Context) error {
			err := verify(ctx, suspect)
			k.record(c, err, suspect)
			return err
		})
		if leader || err != nil {
			return err
		}
	}
}

// [trust.known] reports whether prove can return err without a request to the registry. If it
// cannot, prove passes suspect to its function verify.
func (k *trust) known(c Credential, maxAge time.Duration, doubted bool) (suspect, known bool, err error) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.about(c)
	switch {
	case k.refusal != nil:
		return true, now.Before(k.until), k.refusal
	case doubted:
		return true, now.Sub(k.confirmed) < confirmedFor, nil
	}
	return false, !k.accepted.IsZero() && now.Sub(k.accepted) < maxAge, nil
}

// record records the answer to a request with c. An error that does not match ErrRefused changes
// nothing.
func (k *trust) record(c Credential, err error, suspect bool) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.about(c)
	switch {
	case err == nil:
		k.accepted, k.refusal, k.pause = now, nil, 0
		if suspect {
			k.confirmed = now
		}
	case errors.Is(err, ErrRefused):
		k.pause = min(max(2*k.pause, firstRefusal), lastRefusal)
		k.refusal, k.until = err, now.Add(k.pause)
	}
}

// [trust.about] clears k if its records are about a credential other than c; k.mu is held.
func (k *trust) about(c Credential) {
	if c.Username == k.username && c.Password == k.password {
		return
	}
	k.username, k.password = c.Username, c.Password
	k.accepted, k.confirmed, k.refusal, k.until, k.pause = time.Time{}, time.Time{}, nil, time.Time{}, 0
}

// crowd lets concurrent callers share one call of a function.
type crowd struct {
	mu   sync.Mutex // guards call
	call *call
}

// call is a running call of the function show of [crowd.do]. err is set before done closes.
type call struct {
	header Secret
	done   chan struct{}
	err    error
}

// errNoResult is the error of a call whose function panics.
var errNoResult = errors.New("the request about the credentials ended without a result; try again")

// [crowd.do] calls the function show, which sends the header to the registry, or waits for a call
// that is under way. The result leader is true if this caller called show. After a wait for a call
// that sent the same header, the error is the error of that call. After a wait for a call with
// another header, the error is nil. The call is not cancelled with ctx, because other callers wait
// for it.
func (c *crowd) do(ctx context.Context, header Secret, show func(context.Context) error) (leader bool, err error) {
	c.mu.Lock()
	current := c.call
	leader = current == nil
	if leader {
		current = &call{header: header, done: make(chan struct{}), err: errNoResult}
		c.call = current
	}
	c.mu.Unlock()
	if leader {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTimeout)
		defer cancel()
		defer func() { // also if show panics
			c.mu.Lock()
			c.call = nil
			c.mu.Unlock()
			close(current.done)
		}()
		current.err = show(ctx)
		return true, current.err
	}
	select {
	case <-current.done:
		if current.header != header {
			return false, nil
		}
		return false, current.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
