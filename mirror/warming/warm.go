package warming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"dray/cache"
	"dray/mirror/admin/api"
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

const (
	// maxDepth bounds how deep indexes may be nested. Real images have one level.
	maxDepth = 4
	// maxBlobs bounds the blobs of an image that are fetched at a time.
	maxBlobs = 8
	// tellEvery is the least time between two reports of the progress.
	tellEvery = 200 * time.Millisecond
)

// ErrNoPlatform is wrapped by the error of [Choose] if the index has no manifest for a platform.
var ErrNoPlatform = errors.New("the image has no manifest for the platform")

// Image names an image of an upstream.
type Image struct {
	// Name is the name of the image in answers.
	Name           string
	Upstream, Repo string
	oci.Reference
	// Serves reports whether clients may pull from a repository of a fallback. If it is nil, they may
	// pull from all repositories.
	Serves func(upstream, repo string) bool
}

// Warmer brings images into the cache.
type Warmer struct {
	repos *repository.Store
	pull  *pull.Puller
	cache *cache.Cache
}

// New returns a Warmer.
func New(repos *repository.Store, p *pull.Puller, c *cache.Cache) *Warmer {
	return &Warmer{repos: repos, pull: p, cache: c}
}

// Warm fetches the parts of an image that the cache does not hold. It yields the progress now and
// then, and once more at the end. If it fails, the last value is an error of the operators' API.
// For an index, Warm fetches the manifests that clients on the given platforms pull, or all
// manifests if no platforms are given. The fetches do not count as a pull, and do not raise a blob
// in the order of eviction.
func (w *Warmer) Warm(ctx context.Context, i Image, on []string) iter.Seq2[api.Warmth, error] {
	return func(yield func(api.Warmth, error) bool) {
		j, err := w.job(i, on)
		if err != nil {
			yield(api.Warmth{}, withCode(err))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- j.run(ctx) }()
		ended, err := j.tell(done, yield)
		cancel()
		switch {
		case !ended:
			<-done // nobody wants to know its error
		case err != nil:
			yield(api.Warmth{}, withCode(err))
		default:
			yield(j.progress(), nil)
		}
	}
}

// withCode adds the error code of the operators' API to an error.
func withCode(err error) error {
	if coded, ok := errors.AsType[*api.Error](err); ok {
		return coded
	}
	code := api.CodeInternal
	switch {
	case oci.NotFound(err), errors.Is(err, ErrNoPlatform):
		code = api.CodeNotFound
	case pull.NotAnswered(err), errors.Is(err, pull.ErrNotKept):
		code = api.CodeUnavailable
	}
	return api.Errorf(code, "%v", err)
}

// job warms one image.
type job struct {
	*Warmer
	repo      repository.Repo
	ref       oci.Reference
	serves    func(upstream, repo string) bool
	platforms []v1.Platform
	walked    map[digest.Digest]int // the smallest depth with which walk was called for a manifest

	mu    sync.Mutex // guards the fields below
	at    api.Warmth
	named map[digest.Digest]bool
}

func (w *Warmer) job(i Image, on []string) (*job, error) {
	if i.Upstream == "" {
		return nil, api.Errorf(api.CodeInvalid, "%s: a digest without a repository cannot be fetched; write NAME@%s", i.Name, i.Digest)
	}
	up := w.repos.Upstream(i.Upstream)
	if up == nil {
		return nil, oci.ErrNameUnknown.With("the upstream %q is not configured", i.Upstream)
	}
	parsed, err := platforms.ParseAll(on)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "platform: %v", err)
	}
	return &job{
		Warmer: w, repo: w.repos.Repo(up, i.Repo), ref: i.Reference, serves: i.Serves, platforms: parsed, walked: map[digest.Digest]int{},
		at: api.Warmth{Name: i.Name}, named: map[digest.Digest]bool{},
	}, nil
}

// tell yields the progress whenever it has changed, until the job has ended. If the caller wants no
// more values, tell returns false while the job still runs.
func (j *job) tell(done <-chan error, yield func(api.Warmth, error) bool) (ended bool, err error) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var last api.Warmth
	for {
		select {
		case err := <-done:
			return true, err
		case <-tick.C:
			now := j.progress()
			if now != last && !yield(now, nil) {
				return false, nil
			}
			last = now
		}
	}
}

func (j *job) progress() api.Warmth {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.at
}

// run fetches the missing parts. It returns when the cache holds all parts, or with the first
// error.
func (j *job) run(ctx context.Context) error {
	root, err := j.root(ctx)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.at.Digest = root.Digest
	j.mu.Unlock()
	blobs, err := j.walk(ctx, root, maxDepth)
	if err != nil {
		return err
	}
	slices.SortStableFunc(blobs, func(a, b oci.Child) int { return cmp.Compare(b.Size, a.Size) }) // the longest fetch begins first
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxBlobs)
	for _, b := range blobs {
		g.Go(func() error { return j.blob(ctx, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return j.kept()
}

// root returns the manifest that the reference means now. If a fallback has to answer, all of the
// image comes from the fallback.
func (j *job) root(ctx context.Context) (m *repository.Manifest, err error) {
	may := func(u *repository.Upstream) bool { return j.serves == nil || j.serves(u.Name, j.repo.Name) }
	err = repository.InTurn(ctx, j.repo, j.ref.Digest, may, func(r repository.Repo) (err error) {
		if j.repo = r; j.ref.ByDigest() {
			m, err = j.manifest(ctx, j.ref.Digest)
		} else {
			m, err = j.pull.Newest(ctx, r, j.ref.Tag)
		}
		return err
	})
	return m, err
}

// manifest returns a manifest by digest, as a pull does.
func (j *job) manifest(ctx context.Context, d digest.Digest) (*repository.Manifest, error) {
	at, err := j.repo.LocateManifest(ctx, d, oci.AnyManifest(), repository.Serve)
	if err != nil {
		return nil, err
	}
	if at.Manifest != nil {
		return at.Manifest, nil
	}
	return j.pull.ByDigest(ctx, j.repo, d)
}

// walk counts a manifest and the wanted parts below it, and returns the blobs among them. depth is
// the number of levels of manifests that may follow below m. walk skips a manifest that it has
// already walked with this depth or a smaller one: its parts are counted, and are not nested too
// deep for this depth either. If walk did not skip it, indexes that share their children would
// multiply the calls of walk at each level.
func (j *job) walk(ctx context.Context, m *repository.Manifest, depth int) (blobs []oci.Child, err error) {
	if least, ok := j.walked[m.Digest]; ok && least <= depth {
		return nil, nil
	}
	j.walked[m.Digest] = depth
	man, err := m.Parse()
	if err != nil {
		return nil, err
	}
	j.name(m.Digest, int64(len(m.Raw)), true)
	children := repository.Children(man)
	if man.Index() {
		if children, err = Choose(children, j.platforms); err != nil {
			return nil, err
		}
	}
	for _, c := range children {
		if !c.Manifest {
			if j.name(c.Digest, c.Size, false) {
				blobs = append(blobs, c)
			}
			continue
		}
		if depth == 0 {
			return nil, oci.ErrManifestInvalid.With("indexes are nested more than %d deep", maxDepth)
		}
		below, err := j.manifest(ctx, c.Digest)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", c.Digest, err)
		}
		more, err := j.walk(ctx, below, depth-1)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, more...)
	}
	return blobs, nil
}

// name counts a part of the image. It returns false if the part was counted before.
func (j *job) name(d digest.Digest, size int64, held bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.named[d] {
		return false
	}
	j.named[d] = true
	j.at.Parts++
	j.at.Bytes += size
	if held {
		j.at.HeldParts++
		j.at.HeldBytes += size
	}
	return true
}

// Choose returns the manifests of an index that clients on the given platforms pull. For each
// platform, Choose returns the best match, by the rules of containerd and Docker. If no manifest
// matches, it returns every manifest without a platform. If no platforms are given, Choose returns
// all manifests.
func Choose(children []oci.Child, on []v1.Platform) ([]oci.Child, error) {
	if len(on) == 0 {
		return children, nil
	}
	var chosen []oci.Child
	for _, p := range on {
		var best []oci.Child
		match := platforms.Only(p)
		for _, c := range children {
			switch {
			case c.Platform == nil || !match.Match(*c.Platform):
			case len(best) == 0 || match.Less(*c.Platform, *best[0].Platform):
				best = []oci.Child{c}
			}
		}
		if len(best) == 0 {
			best = slices.DeleteFunc(slices.Clone(children), func(c oci.Child) bool { return c.Platform != nil })
		}
		if len(best) == 0 {
			return nil, fmt.Errorf("%w %s; it has %s", ErrNoPlatform, platforms.Format(p), platformsOf(children))
		}
		chosen = append(chosen, best...)
	}
	return chosen, nil
}

// platformsOf lists the platforms of an index. It skips attestations of BuildKit, which have the
// platform "unknown".
func platformsOf(children []oci.Child) string {
	var all []string
	for _, c := range children {
		if c.Platform != nil && c.Platform.OS != "unknown" {
			all = append(all, platforms.Format(*c.Platform))
		}
	}
	slices.Sort(all)
	return cmp.Or(strings.Join(slices.Compact(all), ", "), "none")
}

func (j *job) blob(ctx context.Context, b oci.Child) error {
	held, err := j.pull.Bring(ctx, j.repo, b, func(n int) { j.arrived(int64(n), int64(n), 0) })
	switch {
	case err != nil:
		return fmt.Errorf("blob %s: %w", b.Digest, err)
	case held:
		j.arrived(b.Size, 0, 1)
	default:
		j.arrived(0, 0, 1)
	}
	return nil
}

func (j *job) arrived(held, fetched int64, parts int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.at.HeldBytes += held
	j.at.FetchedBytes += fetched
	j.at.HeldParts += parts
}

// kept returns an error if the cache has already removed some parts again.
func (j *job) kept() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	lost := 0
	for d := range j.named {
		if _, held := j.cache.Stat(d); !held {
			lost++
		}
	}
	if lost == 0 {
		return nil
	}
	j.at.HeldParts -= lost
	return fmt.Errorf("%w: %d of %d parts are not held; cache.max_bytes may be too small for all that is in use", pull.ErrNotKept, lost, len(j.named))
}
