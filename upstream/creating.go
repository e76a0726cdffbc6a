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
	// maxKnownRepos bounds what is remembered; forgetting costs one write that goes alone.
	maxKnownRepos = 10_000
)

// Creating is a Sink that creates a repository when a write shows that it is missing, and repeats
// the write once. The first write to a repository goes alone until the registry accepts it, so that
// the layers of a first push cost one refused request and one creation together.
type Creating struct {
	next    Sink
	creator Creator

	mu    sync.Mutex // guards repos; never held during a request
	repos map[string]*repoState
}

var _ Sink = (*Creating)(nil)

// repoState is what is known about one repository.
type repoState struct {
	accepted bool    // a write was accepted
	made     int     // creations so far; tells a failure from before one from a failure after it
	leader   *leader // whoever is finding out, nil when nobody is
}

// leader is the time in which one write goes alone. err is set before done closes, and only by a
// failed creation.
type leader struct {
	done chan struct{}
	err  error
}

// outcome is what a turn has shown.
type outcome struct {
	accepted bool  // the registry took a write, or the repository was created
	failure  error // of the creation
}

// NewCreating wraps next.
func NewCreating(next Sink, c Creator) *Creating {
	return &Creating{next: next, creator: c, repos: map[string]*repoState{}}
}

// PutBlob implements Sink.
func (c *Creating) PutBlob(ctx context.Context, repo Repo, b Upload) error {
	told := b.Accepted
	return c.do(ctx, repo.Name, func(accepted func()) error {
		b.Accepted = func() {
			accepted()
			if told != nil {
				told()
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
	made, t, err := c.enter(ctx, repo, -1)
	if err != nil {
		return err
	}
	defer func() { c.leave(repo, t, outcome{}) }() // if nothing below did
	accepted := func() { c.leave(repo, t, outcome{accepted: true}) }
	if err = write(accepted); !errors.Is(err, ErrRepositoryMissing) {
		c.leave(repo, t, outcome{accepted: err == nil})
		return err
	}
	if t == nil {
		if _, t, err = c.enter(ctx, repo, made); err != nil {
			return err
		}
	}
	if t != nil {
		if err := c.create(ctx, repo, t); err != nil {
			return err
		}
	}
	return write(func() {})
}

// enter takes the turn of a repository, or waits for whoever has it. The turn is nil when the
// repository is known to be there: refused is the count of creations that a caller saw before it
// was refused, -1 when it was not.
func (c *Creating) enter(ctx context.Context, repo string, refused int) (made int, mine *leader, err error) {
	for {
		c.mu.Lock()
		s := c.state(repo)
		if refused >= 0 && s.made == refused {
			s.accepted = false
		}
		made, wait := s.made, s.leader
		if !s.accepted && wait == nil {
			mine = &leader{done: make(chan struct{})}
			s.leader = mine
		}
		accepted := s.accepted
		c.mu.Unlock()
		if accepted || mine != nil {
			return made, mine, nil
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

// create makes the repository during t. It is not cancelled with the write that needs it, because
// others wait for it.
func (c *Creating) create(ctx context.Context, repo string, t *leader) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	err := c.creator.Create(ctx, repo)
	if err != nil {
		err = fmt.Errorf("create repository %s: %w", repo, err)
	} else {
		c.mu.Lock()
		c.state(repo).made++
		c.mu.Unlock()
	}
	c.leave(repo, t, outcome{accepted: err == nil, failure: err})
	return err
}

// leave ends a turn, once; it does nothing for a nil or ended one.
func (c *Creating) leave(repo string, t *leader, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.repos[repo]
	if t == nil || s == nil || s.leader != t {
		return
	}
	s.leader, s.accepted = nil, o.accepted
	t.err = o.failure
	close(t.done)
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
