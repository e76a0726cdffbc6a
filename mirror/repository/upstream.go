package repository

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Upstream is a registry as the mirror sees it: how to reach it, and how long its answers are
// believed. It does not change: a reload replaces it by another Upstream of the same name, and
// requests under way go on with the former Upstream.
type Upstream struct {
	// Name is unique among the upstreams. Facts, metrics and logs use it.
	Name string
	// Registry is the registry's own name. Error messages and CloudWatch use it.
	Registry string
	// Public is how the full names of its images begin, such as docker.io. Empty means Registry.
	Public string
	// Source reads from the registry, with retries.
	Source upstream.Source
	// Once reads with a single attempt: see [Upstream.OneTry]. Nil means Source.
	Once upstream.Source
	// Yielding is the source for pulls that a fallback can also answer: see [Upstream.ForPulls]. It
	// gives up sooner than Source. Nil means Source.
	Yielding upstream.Source
	// Sink takes pushes. If it is nil, dray refuses pushes.
	Sink upstream.Sink
	// AcknowledgeLocally says that dray answers a push when it is on stable storage here and in the
	// queue.
	AcknowledgeLocally bool
	// Deleter takes deletions. If it is nil, dray refuses deletions.
	Deleter upstream.Deleter
	// Lister lists tags and referrers.
	Lister upstream.Lister
	// RepositoryPrefix is put before every repository name at the upstream.
	RepositoryPrefix string
	// BuildCaches names the upstream that stores the build caches pushed to this upstream. Nil means
	// that build caches are stored like images.
	BuildCaches *BuildCaches
	// Fallbacks may answer pulls in place of the upstream. [Turns] says in which order they are asked.
	Fallbacks []Fallback
	// Tags sets how long answers about tags are believed.
	Tags TagPolicy
	// Split has the settings for fetching large blobs in parts. [Fetch.Open] copies Split, and sets
	// First and Part in the copy. With the zero value, every blob is fetched by one request.
	Split cache.Split
	// Tier is a store, such as a bucket, in which dray looks for content before it asks the upstream.
	// Nil means that there is none.
	Tier cache.Tier
	// followed says that this is a fallback, and that another fallback follows it.
	followed bool
	// first is the first of the Upstreams that replaced each other under this name (see identity). Nil
	// means that this one is the first.
	first *Upstream
	// alone is the copy without fallbacks, which withoutFallbacks returns. Nil means that
	// withoutFallbacks makes a copy for each call.
	alone *Upstream
}

// TagPolicy sets how long dray believes answers about tags, lists of referrers, and the answer "not
// found".
type TagPolicy struct {
	// Fresh is how long a tag is served without asking the upstream.
	Fresh time.Duration
	// Revalidate is a time that begins at the end of Fresh. During this time, dray serves the old
	// answer at once, and asks the upstream in the background. It has no effect if Fresh is 0.
	Revalidate time.Duration
	// Stale bounds the age of an answer about a tag. While the upstream fails, dray still serves
	// answers up to this age.
	Stale time.Duration
	// NotFound is how long a "not found" is believed.
	NotFound time.Duration
}

// BuildCaches names the upstream that stores the build caches pushed to another upstream. In the
// storing upstream, build caches cost less and are pruned. Clients find build caches under the
// names to which they pushed them.
type BuildCaches struct {
	// To is the upstream that stores the build caches. When a client requests content from the
	// upstream that has this setting, dray always looks in To first. To keep this look cheap, the
	// content of To has to be on this machine. The repositories of To are named UPSTREAM/REPOSITORY.
	// UPSTREAM is the name of the upstream that has this setting.
	To *Upstream
	// WriteBack says that dray also forwards build caches to the upstream that they were pushed to, in
	// the background.
	WriteBack bool
}

// TakesBuildCache reports whether a manifest is a build cache that is stored elsewhere.
func (u *Upstream) TakesBuildCache(man *oci.Manifest) bool {
	return u.BuildCaches != nil && man.BuildCache()
}

// Fallback is an upstream that dray asks in place of the upstream that a client named. The client
// needs only the rights for the name that it used.
type Fallback struct {
	// To is a copy, made by [Upstream.Reading], of the upstream that dray asks. The copy and the
	// original have the same name, so they share facts.
	To *Upstream
	// NotFound says that dray also asks this fallback for content that the upstreams before it do not
	// have. If NotFound is false, dray asks this fallback only if one of those upstreams does not
	// answer.
	NotFound bool
}

// Reading returns the upstream as a fallback of another one. The result takes no pushes. Its
// repositories do not show the content of pushes to u that are still under way. isLast says that no
// other fallback follows. If it is true, pulls use Source, which gives up later than Yielding.
func (u *Upstream) Reading(isLast bool) *Upstream {
	r := *u
	r.Sink, r.Deleter, r.BuildCaches, r.Fallbacks, r.AcknowledgeLocally = nil, nil, nil, nil, false
	// Without first, the keys of r ([Repo.Key]) differ from those of u, so r shows nothing of the
	// pushes to u that are under way.
	r.first, r.alone = nil, nil
	r.followed = !isLast
	return &r
}

// OneTry returns a source that makes a single attempt, or Source if there is no such source. It is
// for requests whose failure does no harm, for example because there is an older answer.
func (u *Upstream) OneTry() upstream.Source {
	if u.Once == nil {
		return u.Source
	}
	return u.Once
}

// keep offers a blob to the tier. Callers pass only a blob that the upstream has and that is held
// here.
func (u *Upstream) keep(d digest.Digest, size int64) {
	if u.Tier != nil {
		u.Tier.Keep(d, size)
	}
}

// Yields reports whether another upstream is asked if this one does not answer.
func (u *Upstream) Yields() bool { return u.followed || len(u.Fallbacks) > 0 }

// ForPulls returns the source for the pulls of clients: Yielding if the upstream yields. Requests
// about pushes use Source.
func (u *Upstream) ForPulls() upstream.Source {
	if u.Yielding == nil || !u.Yields() {
		return u.Source
	}
	return u.Yielding
}

// withoutFallbacks returns a copy of the upstream without fallbacks, so that pulls use Source.
func (u *Upstream) withoutFallbacks() *Upstream {
	if u.alone != nil {
		return u.alone
	}
	a := *u
	a.Fallbacks, a.first = nil, u.identity()
	return &a
}

// identity returns the first Upstream of this name. It is the same for all Upstreams that have
// replaced each other.
func (u *Upstream) identity() *Upstream {
	if u == nil || u.first == nil {
		return u
	}
	return u.first
}

// Remote returns a repository's name at the upstream.
func (u *Upstream) Remote(repo string) upstream.Repo {
	return upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, repo)}
}

func (u *Upstream) check() error {
	if u.Name == "" || u.Source == nil || u.Lister == nil {
		return fmt.Errorf("mirror: upstream %q is incomplete", u.Name)
	}
	for _, f := range u.Fallbacks {
		switch {
		case f.To == nil || f.To.Source == nil || f.To.Lister == nil || f.To.Sink != nil || f.To.Deleter != nil:
			return fmt.Errorf("mirror: upstream %q: a fallback is missing, or takes pushes", u.Name)
		case f.To.Name == u.Name:
			return fmt.Errorf("mirror: upstream %q is a fallback of itself", u.Name)
		}
	}
	if u.BuildCaches == nil {
		return nil
	}
	to := u.BuildCaches.To
	switch {
	case to == nil || to.Sink == nil || to.Deleter == nil:
		return fmt.Errorf("mirror: upstream %q: the target of its build caches does not support pushes and deletions", u.Name)
	case to == u || to.BuildCaches != nil:
		return fmt.Errorf("mirror: upstream %q: its build caches would be redirected in a circle", u.Name)
	case oci.CheckRepo(u.Name) != nil:
		return errors.New("mirror: upstream \"" + u.Name + "\" cannot begin the name of a repository, as is needed for its build caches")
	}
	return nil
}
