package hosted

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Options configure a Store.
type Options struct {
	// Name is the upstream's name in messages and metrics.
	Name string
	// Directory has the files of the repositories. Open creates it if it is missing. The lock of the
	// cache's directory also ensures that only one process uses this directory.
	Directory string
	// Cache stores the bytes.
	Cache *cache.Cache
	// MaxBytes bounds the bytes of all blobs and manifests of the repositories, each counted once. 0
	// means no bound.
	MaxBytes int64
	// Refuse says that the Store refuses a push for which MaxBytes leaves no room. If Refuse is false,
	// the Store drops the images that have not been used for the longest time, to make room.
	Refuse bool
	// Unused is the time without a push or pull after which a tag is dropped if no rule applies to it.
	// 0 means never.
	Unused time.Duration
	// Untagged is the time without a push or pull after which a manifest is dropped if no tag leads to
	// it. 0 means never.
	Untagged time.Duration
	// Rules say when tags are dropped. The first rule that matches a tag applies.
	Rules []Rule
	// Grace is how long a blob without a manifest is kept after a client pushed it or asked for it,
	// because it may belong to a push under way. 0 means 1 hour.
	Grace time.Duration
	// Logger gets messages about dropped tags and manifests, and about errors. Nil discards them.
	Logger *slog.Logger
}

// Store is a hosted registry. All methods may be called concurrently.
type Store struct {
	opts     Options
	cache    *cache.Cache
	log      *slog.Logger
	policy   *policy
	files    files
	contents *contents
	m        *metrics
}

var (
	_ upstream.Source  = (*Store)(nil)
	_ upstream.Sink    = (*Store)(nil)
	_ upstream.Lister  = (*Store)(nil)
	_ upstream.Deleter = (*Store)(nil)
)

// Open reads the files of the repositories and keeps their content from being evicted. It must be
// called before the cache's Run, which may evict. Open renames and logs a file that it cannot
// decode. The other repositories are served.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.Grace = cmp.Or(o.Grace, time.Hour)
	s := &Store{
		opts: o, cache: o.Cache, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("upstream", o.Name),
		contents: &contents{maxBytes: o.MaxBytes, grace: o.Grace, repos: map[string]*repo{}, holds: map[digest.Digest]*hold{}},
		policy:   &policy{rules: o.Rules, unused: o.Unused, dangling: o.Untagged},
	}
	if err := os.MkdirAll(o.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("hosted %s: %w", o.Name, err)
	}
	var err error
	if s.files.root, err = os.OpenRoot(o.Directory); err != nil {
		return nil, fmt.Errorf("hosted %s: %w", o.Name, err)
	}
	s.m = newMetrics(o.Name, s.contents)
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("hosted %s: %w", o.Name, err), s.files.root.Close())
	}
	return s, nil
}

// Close closes the directory. Run must have returned.
func (s *Store) Close() error { return s.files.root.Close() }

// Collectors returns the metrics of the Store.
func (s *Store) Collectors() []prometheus.Collector { return append(s.m.gauges, s.m.dropped) }

// take retains the bytes of a digest in the cache, which puts them on stable storage. If the quota
// has no room for them, take makes room, unless Options.Refuse is set. If take returns no error, it
// has counted a use of the digest. The caller must end this use (contents.drop) after it has tried
// to add the digest to a repository. take returns oci.ErrBlobUnknown if the cache does not have the
// bytes, and ErrFull if there is no room.
func (s *Store) take(ctx context.Context, d digest.Digest) error {
	release, err := s.cache.Retain(ctx, d)
	if err != nil {
		return cacheError(ctx, d, err)
	}
	size, ok := s.cache.Stat(d)
	if !ok {
		release()
		return oci.ErrBlobUnknown.With("the mirror does not have blob %s", d)
	}
	for {
		old, short := s.contents.tryTake(d, size, release)
		if short <= 0 {
			if old != nil {
				old()
			}
			return nil
		}
		if err := s.makeRoom(ctx, short); err != nil {
			release()
			return err
		}
	}
}

func (s *Store) dropped(repo, what, why string) {
	s.m.dropped.WithLabelValues(why).Inc()
	s.log.Info("removed from hosted repository", "repository", repo, "what", what, "why", why)
}

// load reads the files of all repositories. It renames a file that cannot be decoded, so that the
// repository can be pushed again.
func (s *Store) load(ctx context.Context) error {
	return s.files.each(ctx, func(name, file string) error {
		text, err := s.files.read(file)
		if err != nil {
			return err
		}
		st, err := decode(name, text)
		if err != nil {
			s.log.Error("cannot read hosted repository, moved its file", "repository", name, "error", err)
			return s.files.setBad(file)
		}
		if err := s.adopt(ctx, name, st); err != nil {
			return fmt.Errorf("cannot read the content of repository %s: %w; repair the disk of the cache, or delete the file of this blob and push its image again", name, err)
		}
		return nil
	})
}

// adopt gives a repository the state st, which was read from the repository's file. It leaves out
// the manifests that the cache has lost or that cannot be parsed. If the disk fails, the content
// may still be there, so adopt returns an error. Otherwise, the next change of the repository would
// write a state without the content to the file.
func (s *Store) adopt(ctx context.Context, name string, st *state) error {
	var restored []digest.Digest
	defer func() { s.contents.drop(restored...) }()
	restore := func(d digest.Digest, size int64) error {
		restored = append(restored, d)
		return s.restore(ctx, d, size)
	}
	for d, m := range st.manifests {
		// Retain the manifest before reading it: the cache drops an unreadable blob that nobody retains.
		if err := restore(d, m.size); err != nil {
			return err
		}
		raw, err := s.cache.Bytes(ctx, d, oci.MaxManifestBytes)
		if err != nil && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrTooLarge) {
			return err
		}
		var parsed *oci.Manifest
		if err == nil {
			parsed, err = oci.ParseManifest(m.mediaType, raw)
		}
		if err != nil {
			s.log.Warn("hosted manifest is missing", "repository", name, "digest", d, "error", err)
			st.remove(d)
			continue
		}
		m.refs = m.with(parsed)
		for _, b := range m.blobs {
			if err := restore(b.Digest, b.Size); err != nil {
				return err
			}
		}
	}
	s.contents.swap(s.contents.open(name), st, time.Now())
	return nil
}

// restore counts a use of a digest that the file of a repository names, even if the bytes of the
// digest are gone or the quota is exceeded. It returns an error if the disk fails.
func (s *Store) restore(ctx context.Context, d digest.Digest, size int64) error {
	release, err := s.cache.Retain(ctx, d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			return err
		}
		s.log.Warn("hosted blob is missing", "digest", d, "error", err)
	}
	if actual, ok := s.cache.Stat(d); ok {
		size = actual
	}
	if old := s.contents.takeRestored(d, size, release); old != nil {
		old()
	}
	return nil
}

// change calls f with a copy of a repository's state, and makes the copy the new state. If f
// returns an error, or the file cannot be written, the repository keeps its old state, and the
// caller gets an error.
func (s *Store) change(ctx context.Context, name string, f func(next *state) error) error {
	r, err := s.contents.lock(ctx, name)
	if err != nil {
		return err
	}
	defer func() { <-r.changing }()
	next := r.state.clone() // only the holder of the lock replaces the state
	if err := f(next); err != nil {
		return err
	}
	if err := s.files.write(name, next); err != nil {
		return storeError(err)
	}
	releaseAll(s.contents.swap(r, next, time.Now()))
	return nil
}
