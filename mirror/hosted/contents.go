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

// contents has, in memory, the state and the list of blobs of each repository, and the number of
// uses of each digest in all repositories. All methods may be called concurrently.
type contents struct {
	maxBytes int64 // 0 means no bound
	grace    time.Duration

	mu    sync.Mutex // guards the fields below and everything that they point to; no other lock is acquired while mu is held
	repos map[string]*repo
	holds map[digest.Digest]*hold
	used  int64 // bytes of the holds
}

type repo struct {
	name string
	// changing is a lock for changes of the repository's file: a channel of capacity 1 that is full
	// while the lock is held.
	changing chan struct{}
	// state is the content of the file. It is replaced, never changed.
	state *state
	// members are the blobs of the repository.
	members map[digest.Digest]*member
	// written is the time at which the file was last written. stale says that content has been used
	// since then.
	stale   bool
	written time.Time
	// gone says that the repository was empty and has been removed from contents.repos.
	gone bool
}

// member is a blob of one repository.
type member struct {
	size int64
	// needs counts the manifests that name the blob. A blob that no manifest names is kept until
	// member.until.
	needs int
	until time.Time
}

// hold keeps the bytes of one digest for all repositories.
type hold struct {
	size    int64
	uses    int
	release func() // nil if the bytes could not be retained when the Store was opened
}

func newRepo(name string) *repo {
	return &repo{name: name, changing: make(chan struct{}, 1), state: &state{}, members: map[digest.Digest]*member{}}
}

// tryTake adds a use of a digest. release becomes the release function of the digest's hold. If the
// hold had a release function before, tryTake returns it as oldRelease. The caller has to call
// oldRelease: it may belong to an older file, which the cache has replaced and which the new
// function does not free. If the digest does not fit into the quota, tryTake adds no use, and
// shortage is the number of bytes that must become free first.
func (c *contents) tryTake(d digest.Digest, size int64, release func()) (oldRelease func(), shortage int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if shortage = c.used + size - c.maxBytes; c.holds[d] == nil && c.maxBytes > 0 && shortage > 0 {
		return nil, shortage
	}
	return c.takeLocked(d, size, release), 0
}

// takeRestored adds a use of a digest that is in the file of a repository, even if this exceeds the
// quota. If release is nil, the release function of the hold stays the same.
func (c *contents) takeRestored(d digest.Digest, size int64, release func()) (oldRelease func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takeLocked(d, size, release)
}

// takeLocked is tryTake without the quota. The caller holds mu.
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

// drop ends one use of each given digest. The cache may evict a digest after its last use.
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

// dropLocked ends one use of each given digest. The caller holds mu, and has to call the returned
// functions after unlocking.
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

// lookup returns a repository, or nil.
func (c *contents) lookup(name string) *repo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.repos[name]
}

// open returns a repository, and creates it if necessary.
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

// addHeld adds a blob that has a hold to a repository. The repository keeps the blob for
// Options.Grace. If a manifest names the blob by the end of this time, the repository keeps the
// blob as long as a manifest names it.
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
		return nil, oci.ErrUnsupported.With("a manifest of %s needs blob %s; delete the manifest first", name, d)
	}
	m.until = time.Time{}
	return c.leave(r, d, time.Now()), nil
}

// find returns the descriptor of a manifest and marks the manifest as used.
func (c *contents) find(name string, ref oci.Reference) (oci.Descriptor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	if r == nil {
		return oci.Descriptor{}, nameUnknown(name)
	}
	d := ref.Digest
	if ref.Tag != "" {
		d = r.state.tags[ref.Tag].Digest
	}
	m := r.state.manifests[d]
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
	st := r.state
	c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(st.tags), compareTags), nil
}

// referrersOf lists the referrers of a manifest, sorted by digest, so that each page of the list
// can begin after the last referrer of the previous page.
func (c *contents) referrersOf(name string, d digest.Digest) []oci.Descriptor {
	all := []oci.Descriptor{}
	r := c.lookup(name)
	if r == nil {
		return all
	}
	c.mu.Lock()
	st := r.state
	c.mu.Unlock()
	var found []digest.Digest
	for self, m := range st.manifests {
		if m.subject == d {
			found = append(found, self)
		}
	}
	slices.Sort(found)
	for _, self := range found {
		m := st.manifests[self]
		all = append(all, oci.Descriptor{MediaType: m.mediaType, Digest: self, Size: m.size, ArtifactType: m.artifactType, Annotations: m.annotations})
	}
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
	return r.state
}

// expireMembers removes from a repository the blobs that no manifest needs and whose time
// member.until has passed.
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
	return !r.gone && r.state.empty() && len(r.members) == 0
}

func (c *contents) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// lock locks a repository for changes, and creates it if necessary. It returns the cause of ctx if
// ctx ends first.
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

// swap replaces the repository's state by newState, and updates the uses of digests. All content
// that is new in newState must already have a hold, from tryTake or takeRestored. The caller has to
// call the returned functions. The caller holds the lock r.changing, except in Open.
func (c *contents) swap(r *repo, newState *state, now time.Time) (free []func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := r.state
	r.state, r.stale, r.written = newState, false, now
	for d, m := range newState.manifests {
		if old.has(d, m) {
			continue
		}
		c.holds[d].uses++
		for _, b := range m.blobs {
			blob := c.join(r, b.Digest)
			blob.needs++
			blob.until = time.Time{} // a manifest needs the blob now
		}
	}
	for d, m := range old.manifests {
		if newState.has(d, m) {
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

// join adds a blob that has a hold to a repository. The caller holds mu.
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

// leave removes a blob from a repository, unless a manifest needs it or it is kept for a push. The
// caller holds mu.
func (c *contents) leave(r *repo, d digest.Digest, now time.Time) []func() {
	if m := r.members[d]; m == nil || m.needs > 0 || now.Before(m.until) {
		return nil
	}
	delete(r.members, d)
	return c.dropLocked(d)
}

// lacks returns the first of the given manifests that a repository does not have, or "".
func (c *contents) lacks(name string, manifests []digest.Digest) digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	for _, d := range manifests {
		if r == nil || r.state.manifests[d] == nil {
			return d
		}
	}
	return ""
}

// forget removes a repository, unless the repository has a blob again. The caller holds r.changing.
func (c *contents) forget(r *repo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(r.members) == 0 {
		r.gone = true
		delete(c.repos, r.name)
	}
}

// unwritten reports whether two conditions hold: the repository was used after its file was last
// written, and this write was at least minAge ago.
func (c *contents) unwritten(r *repo, minAge time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return r.stale && !r.gone && time.Since(r.written) >= minAge
}

// compareTags compares in the order of the specification: alphanumeric, ignoring case. Tags that
// differ only by case are ordered by their bytes.
func compareTags(a, b string) int {
	if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
