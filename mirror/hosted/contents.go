package hosted

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// contents is what the repositories have, in memory: their states, their blobs, and how often each
// digest is needed by all of them. All methods may be called concurrently.
type contents struct {
	maxBytes int64 // 0: no bound
	grace    time.Duration

	mu    sync.Mutex // guards below, and what hangs on it; leaf lock
	repos map[string]*repo
	holds map[digest.Digest]*hold
	used  int64 // bytes of the holds
}

// repo is one repository.
type repo struct {
	name string
	// changing is full while one changes the repository's file; capacity 1.
	changing chan struct{}
	// now is what the file says. It is replaced, never changed.
	now *state
	// members are the blobs that the repository has.
	members map[digest.Digest]*member
	// stale says that uses have not been written to the file since written.
	stale   bool
	written time.Time
	// gone says that the repository was empty and is no longer in contents.repos.
	gone bool
}

// member is a blob of one repository.
type member struct {
	size int64
	// needs counts the manifests that name it; without any it stays until until.
	needs int
	until time.Time
}

// hold keeps the bytes of one digest for all repositories.
type hold struct {
	size    int64
	uses    int
	release func() // nil: the bytes were not there when the Store was opened
}

func newRepo(name string) *repo {
	return &repo{name: name, changing: make(chan struct{}, 1), now: &state{}, members: map[digest.Digest]*member{}}
}

// tryTake adds a use of a digest, with a release that replaces the older one: the file may have
// been replaced meanwhile. short is by how many bytes there is not enough room.
func (c *contents) tryTake(d digest.Digest, size int64, release func()) (old func(), short int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if short = c.used + size - c.maxBytes; c.holds[d] == nil && c.maxBytes > 0 && short > 0 {
		return nil, short
	}
	return c.takeLocked(d, size, release), 0
}

// takeAgain is tryTake for what a file says is here, over the quota as well. Without a release the
// older one stays.
func (c *contents) takeAgain(d digest.Digest, size int64, release func()) (old func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takeLocked(d, size, release)
}

// takeLocked needs mu.
func (c *contents) takeLocked(d digest.Digest, size int64, release func()) (old func()) {
	h := c.holds[d]
	if h == nil {
		h = &hold{size: size}
		c.holds[d] = h
		c.used += size
	}
	h.uses++
	if release != nil {
		old, h.release = h.release, release
	}
	return old
}

// drop ends uses of digests. What nobody uses any more is left to the cache to evict.
func (c *contents) drop(ds ...digest.Digest) {
	c.mu.Lock()
	free := c.dropLocked(ds...)
	c.mu.Unlock()
	releaseAll(free)
}

func releaseAll(free []func()) {
	for _, release := range free {
		release()
	}
}

// dropLocked needs mu; the caller releases what it returns afterwards.
func (c *contents) dropLocked(ds ...digest.Digest) (free []func()) {
	for _, d := range ds {
		h := c.holds[d]
		if h == nil {
			continue
		}
		if h.uses--; h.uses > 0 {
			continue
		}
		delete(c.holds, d)
		c.used -= h.size
		if h.release != nil {
			free = append(free, h.release)
		}
	}
	return free
}

// lookup finds a repository. It is nil where there is none.
func (c *contents) lookup(name string) *repo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.repos[name]
}

// open finds a repository or makes it.
func (c *contents) open(name string) *repo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.openLocked(name)
}

func (c *contents) openLocked(name string) *repo {
	r := c.repos[name]
	if r == nil {
		r = newRepo(name)
		c.repos[name] = r
	}
	return r
}

// addHeld makes a blob that is held a member of a repository, for Grace or until a manifest needs
// it.
func (c *contents) addHeld(name string, d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.openLocked(name)
	c.join(r, d).until = time.Now().Add(c.grace)
}

func (c *contents) renew(name string, d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	if r == nil || r.members[d] == nil {
		return false
	}
	r.members[d].until = time.Now().Add(c.grace)
	return true
}

func (c *contents) deleteBlob(name string, d digest.Digest) ([]func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	if r == nil || r.members[d] == nil {
		return nil, oci.ErrBlobUnknown.With("%s has no blob %s", name, d)
	}
	m := r.members[d]
	if m.needs > 0 {
		return nil, oci.ErrUnsupported.With("a manifest of %s needs blob %s: delete that first", name, d)
	}
	m.until = time.Time{}
	return c.leave(r, d, time.Now()), nil
}

// find looks a manifest up and marks it used.
func (c *contents) find(name string, ref oci.Reference) (oci.Descriptor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	if r == nil {
		return oci.Descriptor{}, nameUnknown(name)
	}
	d := ref.Digest
	if ref.Tag != "" {
		d = r.now.tags[ref.Tag].Digest
	}
	m := r.now.manifests[d]
	if m == nil {
		return oci.Descriptor{}, unknown(name, ref)
	}
	m.used.Store(time.Now().Unix())
	r.stale = true
	return oci.Descriptor{MediaType: m.mediaType, Digest: d, Size: m.size}, nil
}

func (c *contents) tagNames(name string) ([]string, error) {
	c.mu.Lock()
	r := c.repos[name]
	if r == nil {
		c.mu.Unlock()
		return nil, nameUnknown(name)
	}
	now := r.now
	c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(now.tags), compareTags), nil
}

// referrers are sorted by digest, so that pages go on where they ended.
func (c *contents) referrersOf(name string, d digest.Digest) []oci.Descriptor {
	all := []oci.Descriptor{}
	r := c.lookup(name)
	if r == nil {
		return all
	}
	c.mu.Lock()
	now := r.now
	c.mu.Unlock()
	for self, m := range now.manifests {
		if m.subject == d {
			all = append(all, oci.Descriptor{MediaType: m.mediaType, Digest: self, Size: m.size, ArtifactType: m.artifactType, Annotations: m.annotations})
		}
	}
	slices.SortFunc(all, func(a, b oci.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return all
}

func (c *contents) all() []*repo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.repos))
}

func (c *contents) stateOf(r *repo) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return r.now
}

// expireMembers takes blobs out of a repository that no manifest needed in time.
func (c *contents) expireMembers(r *repo, now time.Time) {
	c.mu.Lock()
	var free []func()
	for d := range r.members {
		free = append(free, c.leave(r, d, now)...)
	}
	c.mu.Unlock()
	releaseAll(free)
}

func (c *contents) idle(r *repo) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !r.gone && r.now.empty() && len(r.members) == 0
}

func (c *contents) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// lock waits until nobody else changes a repository, which is made where it is missing.
func (c *contents) lock(ctx context.Context, name string) (*repo, error) {
	for {
		r := c.open(name)
		select {
		case r.changing <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		c.mu.Lock()
		gone := r.gone
		c.mu.Unlock()
		if !gone {
			return r, nil
		}
		<-r.changing
	}
}

// swap makes next the repository's state and settles what is held for it. Needs the turn; what next
// newly names must be held.
func (c *contents) swap(r *repo, next *state, now time.Time) (free []func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := r.now
	r.now, r.stale, r.written = next, false, now
	for d, m := range next.manifests {
		if old.has(d, m) {
			continue
		}
		c.holds[d].uses++
		for _, b := range m.blobs {
			blob := c.join(r, b.Digest)
			blob.needs++
			blob.until = time.Time{} // the push that it was kept for has landed
		}
	}
	for d, m := range old.manifests {
		if next.has(d, m) {
			continue
		}
		free = append(free, c.dropLocked(d)...)
		for _, b := range m.blobs {
			r.members[b.Digest].needs--
			free = append(free, c.leave(r, b.Digest, now)...)
		}
	}
	return free
}

// join makes a blob that is held a member of a repository. Needs mu.
func (c *contents) join(r *repo, d digest.Digest) *member {
	m := r.members[d]
	if m == nil {
		h := c.holds[d]
		h.uses++
		m = &member{size: h.size}
		r.members[d] = m
	}
	return m
}

// leave takes a blob out of a repository that neither needs it nor owes it to a push. Needs mu.
func (c *contents) leave(r *repo, d digest.Digest, now time.Time) []func() {
	if m := r.members[d]; m == nil || m.needs > 0 || now.Before(m.until) {
		return nil
	}
	delete(r.members, d)
	return c.dropLocked(d)
}

// lacks finds a manifest that a repository does not have; "" where it has all of them.
func (c *contents) lacks(name string, manifests []digest.Digest) digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	for _, d := range manifests {
		if r == nil || r.now.manifests[d] == nil {
			return d
		}
	}
	return ""
}

// forget takes a repository out that has nothing any more. Needs the turn.
func (c *contents) forget(r *repo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(r.members) == 0 {
		r.gone = true
		delete(c.repos, r.name)
	}
}

// unwritten reports whether uses of what a repository has were not written for so long.
func (c *contents) unwritten(r *repo, age time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return r.stale && !r.gone && time.Since(r.written) >= age
}

// compareTags is the order of the specification: alphanumeric, without regard to case; what differs
// by case alone is told apart all the same.
func compareTags(a, b string) int {
	if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
