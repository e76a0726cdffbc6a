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
	// createdWindow starts when a repository is created. While it lasts, the type Creating repeats
	// writes that do not find the repository. AWS support advises to wait about a second after a
	// creation.
	createdWindow = 30 * time.Second
	// createdPatience bounds how long one write waits for the registry to find the repository. It is
	// short, because a client waits for the write. The pauses between the attempts grow from firstLook
	// to lastLook.
	createdPatience     = 10 * time.Second
	firstLook, lastLook = 100 * time.Millisecond, 2 * time.Second
	// maxKnownRepos bounds the repositories whose state Creating remembers. If Creating drops the
	// state of a repository, the next write to the repository runs alone, which costs only time.
	maxKnownRepos = 10_000
	// missingFor is how long writes with [Call.Existing] fail without a request to the registry, after
	// such a write did not find the repository.
	missingFor = time.Minute
)

// Creating is a Sink that creates missing repositories. When the registry refuses a write because
// the repository is missing, Creating creates the repository and repeats the write. A registry may
// need a moment until it finds a new repository: ECR creates asynchronously
// (hashicorp/terraform-provider-aws#3849). For createdWindow after a creation, Creating therefore
// repeats a write that does not find the repository, and does not create the repository again.
//
// Until the registry has accepted a write to a repository, Creating sends only one write at a time
// to this repository. So all layers of a first push cost one creation, and only one layer is sent
// again and again until the registry finds the repository. A write with [Call.Existing] creates no
// repository. If the repository is missing, such a write fails with ErrRepositoryMissing.
type Creating struct {
	next    Sink
	creator Creator

	mu    sync.Mutex // guards repos; never held during a request
	repos map[string]*repoState
}

var _ Sink = (*Creating)(nil)

type repoState struct {
	accepted  bool    // a write was accepted
	creations int     // creations so far; a refused write compares it with the number when the write began
	leader    *leader // the one write that is under way while others wait for it; nil if there is none
	// missing is the error of the last leader, if that leader found no repository and was not allowed
	// to create it; otherwise zero.
	missing absence
	created time.Time // time of the last creation
	inVain  bool      // since the creation, a write has waited in vain for the registry to find the repository
}

// absence is the error of a write that found no repository, with the time of the registry's answer.
type absence struct {
	err error
	at  time.Time
}

// turn is the result of Creating.enter for one write.
type turn struct {
	creations int     // creations so far
	lead      *leader // set if this write leads; nil if the registry has accepted a write to the repository
	missing   absence // repoState.missing for a leader, or zero if it is older than missingFor
}

// leader is a write that the other writes to its repository wait for. err is set before done
// closes, and only by a failed creation.
type leader struct {
	done chan struct{}
	err  error
}

type outcome struct {
	accepted bool    // the registry accepted a write
	failure  error   // error of the creation
	missing  absence // of a write that was not allowed to create the repository
}

// NewCreating returns a Sink that writes to sink, and creates repositories with c.
func NewCreating(sink Sink, c Creator) *Creating {
	return &Creating{next: sink, creator: c, repos: map[string]*repoState{}}
}

// PutBlob implements Sink.
func (c *Creating) PutBlob(ctx context.Context, repo Repo, b Upload) error {
	notify := b.Accepted
	return c.do(ctx, repo, func(accepted func()) error {
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
	err = c.do(ctx, repo, func(func()) (err error) {
		p, err = c.next.PutManifest(ctx, repo, ref, m)
		return err
	})
	return p, err
}

// Mount implements Sink.
func (c *Creating) Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (ok bool, err error) {
	err = c.do(ctx, repo, func(func()) (err error) {
		ok, err = c.next.Mount(ctx, repo, from, d)
		return err
	})
	return ok, err
}

func (c *Creating) do(ctx context.Context, to Repo, write func(accepted func()) error) error {
	repo := to.Name
	t, err := c.enter(ctx, repo, -1)
	if err != nil {
		return err
	}
	defer func() { c.leave(repo, t.lead, outcome{}) }() // if no call below has ended the lead
	accepted := func() { c.leave(repo, t.lead, outcome{accepted: true}) }
	refused := t.missing
	if !to.Existing || refused.err == nil {
		refused = absence{write(accepted), time.Now()}
	}
	if !errors.Is(refused.err, ErrRepositoryMissing) {
		c.leave(repo, t.lead, outcome{accepted: refused.err == nil})
		return refused.err
	}
	if t.lead == nil {
		if t, err = c.enter(ctx, repo, t.creations); err != nil {
			return err
		}
	}
	lately, _ := c.created(repo)
	switch {
	case t.lead == nil || lately: // the repository exists, or has just been created
	case to.Existing:
		c.leave(repo, t.lead, outcome{missing: refused})
		return refused.err
	default:
		if err := c.create(ctx, repo, t.lead); err != nil {
			return err
		}
	}
	unseen := func(err error) bool {
		lately, inVain := c.created(repo)
		return errors.Is(err, ErrRepositoryMissing) && lately && !inVain
	}
	err = AwaitCreated(ctx, unseen, func() error { return write(accepted) })
	if errors.Is(err, ErrRepositoryMissing) {
		c.giveUp(repo)
	}
	c.leave(repo, t.lead, outcome{accepted: err == nil})
	return err
}

// AwaitCreated calls write until it succeeds, or fails with an error for which isMissing returns
// false. After 10 s it gives up, because a registry should by then have found a new repository. The
// pauses between the calls grow. If ctx is cancelled, AwaitCreated returns the cause of ctx.
func AwaitCreated(ctx context.Context, isMissing func(error) bool, write func() error) error {
	end := time.Now().Add(createdPatience)
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		err := write()
		if err == nil || !isMissing(err) || time.Now().Add(pause).After(end) {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// created reports whether a repository was created a short time ago, and whether a write has waited
// in vain for the registry to find it.
func (c *Creating) created(repo string) (lately, inVain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.repos[repo]
	return s != nil && time.Since(s.created) < createdWindow, s != nil && s.inVain
}

// giveUp records that a write has waited in vain. Until the repository is created again, further
// writes do not wait for it.
func (c *Creating) giveUp(repo string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state(repo).inVain = true
}

// enter returns at once if the registry has accepted a write to the repository. Otherwise it makes
// the caller the leader, or waits until the current leader ends, and looks again. Before the
// caller's first write, the parameter creations is -1. After a refused write, it is the number of
// creations before that write. If Creating has not created the repository since then, the
// repository is missing, so enter ignores that the registry accepted an earlier write. The error is
// the error of the leader's creation, or the cause of ctx.
func (c *Creating) enter(ctx context.Context, repo string, creations int) (turn, error) {
	for {
		c.mu.Lock()
		s := c.state(repo)
		if creations >= 0 && s.creations == creations {
			s.accepted = false
		}
		t, wait, accepted := turn{creations: s.creations}, s.leader, s.accepted
		if !accepted && wait == nil {
			t.lead = &leader{done: make(chan struct{})}
			s.leader = t.lead
			if time.Since(s.missing.at) < missingFor {
				t.missing = s.missing
			}
		}
		c.mu.Unlock()
		if accepted || t.lead != nil {
			return t, nil
		}
		select {
		case <-wait.done:
			if wait.err != nil {
				return turn{}, wait.err
			}
		case <-ctx.Done():
			return turn{}, context.Cause(ctx)
		}
	}
}

// create creates the repository for a leader, and ends the lead if the creation fails. The creation
// is not cancelled with the leader's write, because other writes wait for it.
func (c *Creating) create(ctx context.Context, repo string, lead *leader) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	if err := c.creator.Create(ctx, repo); err != nil {
		err = fmt.Errorf("create repository %s: %w", repo, err)
		c.leave(repo, lead, outcome{failure: err})
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state(repo)
	s.creations++
	s.created, s.inVain = time.Now(), false
	return nil
}

// leave ends the lead and records its outcome. It does nothing for a lead that is nil or has ended.
func (c *Creating) leave(repo string, lead *leader, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.repos[repo]
	if lead == nil || s == nil || s.leader != lead {
		return
	}
	s.leader, s.accepted, s.missing = nil, o.accepted, o.missing
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
