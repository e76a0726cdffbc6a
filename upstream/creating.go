package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

const (
	createTimeout = 30 * time.Second
	// maxKnownRepos bounds the repositories that are remembered. If the state of a repository is
	// dropped, the next write to it runs alone, which costs only time.
	maxKnownRepos = 10_000
)

// Creating is a Sink that creates a repository when a write finds it missing, and repeats that
// write once. Until the registry has accepted a write to a repository, only one write is under
// way there, so the layers of a first push together cost one refused request and one creation.
type Creating struct {
	next    Sink
	creator Creator

	mu    sync.Mutex // guards repos; never held during a request
	repos map[string]*repoState
}

var _ Sink = (*Creating)(nil)

// repoState is the state of one repository.
type repoState struct {
	accepted  bool    // a write was accepted
	creations int     // creations so far; shows whether a refused write began before the last creation
	leader    *leader // the write that is under way alone, nil if there is none
}

// leader is a write that the other writes to its repository wait for. err is set before done
// closes, and only by a failed creation.
type leader struct {
	done chan struct{}
	err  error
}

// outcome is the result of a leader.
type outcome struct {
	accepted bool  // the registry accepted a write, or the repository was created
	failure  error // error of the creation
}

// NewCreating returns a Sink that writes to next, and creates repositories with c.
func NewCreating(next Sink, c Creator) *Creating {
	return &Creating{next: next, creator: c, repos: map[string]*repoState{}}
}

// PutBlob implements Sink.
func (c *Creating) PutBlob(ctx context.Context, repo Repo, b Upload) error {
	notify := b.Accepted
	return c.do(ctx, repo.Name, func(accepted func()) error {
		b.Accepted = func() {
			accepted()
			if notify != nil {
				notify()
			}
		}
		return c.next.PutBlob(ctx, repo, b)
	})
}

// PutManifest implements Sink.
func (c *Creating) PutManifest(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (p Pushed, err error) {
	err = c.do(ctx, repo.Name, func(func()) (err error) {
		p, err = c.next.PutManifest(ctx, repo, ref, m)
		return err
	})
	return p, err
}

// Mount implements Sink.
func (c *Creating) Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (ok bool, err error) {
	err = c.do(ctx, repo.Name, func(func()) (err error) {
		ok, err = c.next.Mount(ctx, repo, from, d)
		return err
	})
	return ok, err
}

func (c *Creating) do(ctx context.Context, repo string, write func(accepted func()) error) error {
	creations, lead, err := c.enter(ctx, repo, -1)
	if err != nil {
		return err
	}
	defer func() { c.leave(repo, lead, outcome{}) }() // if no call below has ended the lead
	accepted := func() { c.leave(repo, lead, outcome{accepted: true}) }
	if err = write(accepted); !errors.Is(err, ErrRepositoryMissing) {
		c.leave(repo, lead, outcome{accepted: err == nil})
		return err
	}
	if lead == nil {
		if _, lead, err = c.enter(ctx, repo, creations); err != nil {
			return err
		}
	}
	if lead != nil {
		if err := c.create(ctx, repo, lead); err != nil {
			return err
		}
	}
	return write(func() {})
}

// enter makes the caller the leader of a repository, or waits for the current leader. The returned
// lead is nil if the repository is known to exist. creations is the count of creations until now.
// seen is that count from before the caller's write was refused, or -1 if no write was refused. The
// error is that of the leader's creation, or the cause of ctx.
func (c *Creating) enter(ctx context.Context, repo string, seen int) (creations int, lead *leader, err error) {
	for {
		c.mu.Lock()
		s := c.state(repo)
		if seen >= 0 && s.creations == seen {
			s.accepted = false
		}
		creations, wait := s.creations, s.leader
		if !s.accepted && wait == nil {
			lead = &leader{done: make(chan struct{})}
			s.leader = lead
		}
		accepted := s.accepted
		c.mu.Unlock()
		if accepted || lead != nil {
			return creations, lead, nil
		}
		select {
		case <-wait.done:
			if wait.err != nil {
				return 0, nil, wait.err
			}
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		}
	}
}

// create creates the repository for a leader. It is not cancelled with the leader's write,
// because other writes wait for it.
func (c *Creating) create(ctx context.Context, repo string, lead *leader) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	err := c.creator.Create(ctx, repo)
	if err != nil {
		err = fmt.Errorf("create repository %s: %w", repo, err)
	} else {
		c.mu.Lock()
		c.state(repo).creations++
		c.mu.Unlock()
	}
	c.leave(repo, lead, outcome{accepted: err == nil, failure: err})
	return err
}

// leave ends the lead and records its outcome. It does nothing for a lead that is nil or has
// ended.
func (c *Creating) leave(repo string, lead *leader, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.repos[repo]
	if lead == nil || s == nil || s.leader != lead {
		return
	}
	s.leader, s.accepted = nil, o.accepted
	lead.err = o.failure
	close(lead.done)
}

// state finds or makes the state of a repository; c.mu is held.
func (c *Creating) state(repo string) *repoState {
	s := c.repos[repo]
	if s == nil {
		if len(c.repos) >= maxKnownRepos {
			maps.DeleteFunc(c.repos, func(_ string, s *repoState) bool { return s.leader == nil })
		}
		s = &repoState{}
		c.repos[repo] = s
	}
	return s
}
