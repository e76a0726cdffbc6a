// Package hosted is a registry whose content lies here alone: what is pushed to it is never sent on.
//
// It is an upstream like others to the mirror: a Source, a Sink, a Lister and a Deleter. Invariants:
//
//   - What a repository has (its manifests and tags) is one file, replaced by one rename after it is on stable storage, and
//     only after everything that it names is. An acknowledged push survives a kill -9, and a half one was never there.
//   - Bytes are blobs of the cache, kept from eviction while a repository needs them. Nothing is copied: what a client
//     pushed is in the cache already.
//   - Losing the store of facts loses nothing here. Losing the directory of the cache loses what was hosted; a repository
//     that needs a blob that is gone answers "not found", and the next push of it heals that.
//   - A blob that a repository was asked about is its for Options.Grace, so that no garbage collection comes between a
//     client that leaves out a layer and the manifest that needs it.
//   - No file is touched while Store.mu is held.
package hosted

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// ErrFull says that the quota is used up, by what may not be dropped for this.
var ErrFull = errors.New("quota of the hosted registry used up")

// Options of a Store.
type Options struct {
	// Name is the upstream's name in messages and metrics.
	Name string
	// Directory holds the files of the repositories; created when missing. One process at a time may use it, which the
	// lock of the cache's directory sees to.
	Directory string
	// Cache holds the bytes.
	Cache *cache.Cache
	// MaxBytes bounds the blobs and manifests that are needed here, each counted once. Zero is no bound.
	MaxBytes int64
	// Refuse refuses a push that does not fit. Otherwise what was not used for the longest time goes.
	Refuse bool
	// Unused drops a tag that was neither pushed nor pulled for so long, where no rule says otherwise. Zero: never.
	Unused time.Duration
	// Untagged drops a manifest that no tag leads to and that was neither pushed nor pulled for so long. Zero: never.
	Untagged time.Duration
	// Rules say which tags go; the first one that fits a tag decides.
	Rules []Rule
	// Grace is how long a blob without a manifest is kept for the push that it may belong to. Zero means 1 hour.
	Grace time.Duration
	// Logger is told what was dropped and what is wrong. Nil discards.
	Logger *slog.Logger
}

// Store is a hosted registry. All methods may be called concurrently.
type Store struct {
	opts  Options
	cache *cache.Cache
	log   *slog.Logger
	rules []rule
	root  *os.Root
	m     *metrics

	mu    sync.Mutex // guards below, and what hangs on it; leaf lock
	repos map[string]*repo
	holds map[digest.Digest]*hold
	used  int64 // bytes of the holds
}

var (
	_ upstream.Source  = (*Store)(nil)
	_ upstream.Sink    = (*Store)(nil)
	_ upstream.Lister  = (*Store)(nil)
	_ upstream.Deleter = (*Store)(nil)
)

// repo is one repository.
type repo struct {
	name string
	// turn is full while one changes the repository's file; capacity 1.
	turn chan struct{}
	// now is what the file says. It is replaced, never changed.
	now *state
	// members are the blobs that the repository has.
	members map[digest.Digest]*member
	// stale says that uses have not been written to the file since written.
	stale   bool
	written time.Time
	// gone says that the repository was empty and is no longer in Store.repos.
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

// Open reads what is hosted and keeps it from being evicted. It is called before the cache's Run, which may evict. What
// cannot be read is set aside and logged: the rest is served.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		opts: o, cache: o.Cache, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("upstream", o.Name),
		repos: map[string]*repo{}, holds: map[digest.Digest]*hold{},
	}
	s.opts.Grace = cmp.Or(o.Grace, time.Hour)
	var err error
	if s.rules, err = compile(o.Rules); err != nil {
		return nil, fmt.Errorf("hosted %s: %w", o.Name, err)
	}
	if err := os.MkdirAll(o.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("hosted %s: %w", o.Name, err)
	}
	if s.root, err = os.OpenRoot(o.Directory); err != nil {
		return nil, fmt.Errorf("hosted %s: %w", o.Name, err)
	}
	s.m = newMetrics(s)
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("hosted %s: %w", o.Name, err), s.root.Close())
	}
	return s, nil
}

// pruneEvery is how often the Store looks for what is to go.
const pruneEvery = time.Minute

// Run drops what has become old until ctx ends, and then writes what was used when.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.writeUses(context.WithoutCancel(ctx), 0)
			return nil
		case now := <-tick.C:
			s.prune(ctx, now)
			s.writeUses(ctx, usesEvery)
		}
	}
}

// Close gives up the directory. Run must have returned.
func (s *Store) Close() error { return s.root.Close() }

// take holds the bytes of a digest that the cache has, on stable storage, making room under the quota. Each take needs
// a drop. It returns oci.ErrBlobUnknown when the cache does not have them.
func (s *Store) take(ctx context.Context, d digest.Digest) (size int64, err error) {
	release, err := s.cache.Keep(ctx, d)
	if err != nil {
		return 0, s.keepError(ctx, d, err)
	}
	size, ok := s.cache.Stat(d)
	if !ok {
		release()
		return 0, oci.ErrBlobUnknown.With("blob %s is not here", d)
	}
	for {
		old, short := s.tryTake(d, size, release)
		if short <= 0 {
			if old != nil {
				old()
			}
			return size, nil
		}
		if err := s.makeRoom(ctx, short); err != nil {
			release()
			return 0, err
		}
	}
}

func (s *Store) keepError(ctx context.Context, d digest.Digest, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cache.ErrNotFound):
		return oci.ErrBlobUnknown.With("blob %s is not here", d).Because(err)
	}
	return oci.ErrUnavailable.With("the mirror cannot store content now").Because(err)
}

// tryTake adds a use of a digest, with a release that replaces the older one: the file may have been replaced meanwhile.
// short is by how many bytes there is not enough room.
func (s *Store) tryTake(d digest.Digest, size int64, release func()) (old func(), short int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[d]
	if h == nil {
		if short = s.used + size - s.opts.MaxBytes; s.opts.MaxBytes > 0 && short > 0 {
			return nil, short
		}
		h = &hold{size: size}
		s.holds[d] = h
		s.used += size
	}
	h.uses++
	old, h.release = h.release, release
	return old, 0
}

// drop ends uses of digests. What nobody uses any more is left to the cache to evict.
func (s *Store) drop(ds ...digest.Digest) {
	s.mu.Lock()
	free := s.dropLocked(ds...)
	s.mu.Unlock()
	for _, release := range free {
		release()
	}
}

// dropLocked needs mu; the caller releases what it returns afterwards.
func (s *Store) dropLocked(ds ...digest.Digest) (free []func()) {
	for _, d := range ds {
		h := s.holds[d]
		if h == nil {
			continue
		}
		if h.uses--; h.uses > 0 {
			continue
		}
		delete(s.holds, d)
		s.used -= h.size
		if h.release != nil {
			free = append(free, h.release)
		}
	}
	return free
}

// lookup finds a repository. It is nil where there is none.
func (s *Store) lookup(name string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[name]
}

// open finds a repository or makes it.
func (s *Store) open(name string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openLocked(name)
}

func (s *Store) openLocked(name string) *repo {
	r := s.repos[name]
	if r == nil {
		r = newRepo(name)
		s.repos[name] = r
	}
	return r
}

func newRepo(name string) *repo {
	return &repo{name: name, turn: make(chan struct{}, 1), now: &state{}, members: map[digest.Digest]*member{}}
}

func nameUnknown(name string) error {
	return oci.ErrNameUnknown.With("there is no repository %s", name)
}
