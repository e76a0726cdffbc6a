package repository

import (
	"errors"
	"fmt"
	"time"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Upstream is a registry as the mirror sees it: how to reach it, and how long its answers are
// believed.
type Upstream struct {
	// Name is unique among the upstreams. Facts, metrics and logs use it.
	Name string
	// Registry is the registry's own name, for error messages and for CloudWatch.
	Registry string
	// Public is the beginning of full names of its images, such as docker.io. Empty means
	// Registry.
	Public string
	// Source reads, with retries.
	Source upstream.Source
	// Once reads with a single attempt: see [Upstream.OneTry]. Nil means Source.
	Once upstream.Source
	// Sink takes pushes. Nil refuses them.
	Sink upstream.Sink
	// AcknowledgeLocally answers a push when it is on stable storage here and in the queue.
	AcknowledgeLocally bool
	// Deleter takes deletions. Nil refuses them.
	Deleter upstream.Deleter
	// Lister lists tags and referrers.
	Lister upstream.Lister
	// RepositoryPrefix is put before every repository name at the upstream.
	RepositoryPrefix string
	// BuildCaches names the upstream that stores the build caches pushed to this one. Nil means
	// that they are stored like images.
	BuildCaches *BuildCaches
	// Tags sets how long answers about tags are believed.
	Tags TagPolicy
	// Split sets how large blobs are fetched in parts. Its Part is set by [Fetch]. The zero value
	// fetches every blob by one request.
	Split cache.Split
}

// TagPolicy sets how long answers about tags, and "not found", are believed.
type TagPolicy struct {
	// Fresh is how long a tag is served without a question to the upstream.
	Fresh time.Duration
	// Revalidate is how long after Fresh the old answer is still served at once, while the
	// upstream is asked in the background. It has no effect if Fresh is 0.
	Revalidate time.Duration
	// Stale is how long after the last answer a tag is still served while the upstream fails.
	Stale time.Duration
	// NotFound is how long a "not found" is believed.
	NotFound time.Duration
}

// BuildCaches names the upstream that stores the build caches pushed to another one. They cost
// less there, and are pruned. Clients find a build cache under the name that they pushed it to.
type BuildCaches struct {
	// To is the upstream that stores them. Its content is on this machine. It is asked about each
	// manifest and blob that a client asks the other upstream for. Its repositories are named
	// UPSTREAM/REPOSITORY, after the other upstream.
	To *Upstream
	// WriteBack also forwards build caches to the upstream that they were pushed to, in the
	// background.
	WriteBack bool
}

// TakesBuildCache reports whether a manifest is a build cache that is stored elsewhere.
func (u *Upstream) TakesBuildCache(man *oci.Manifest) bool {
	return u.BuildCaches != nil && man.BuildCache()
}

// OneTry returns a source that makes a single attempt. It is for questions with an older answer
// that can be used if the attempt fails.
func (u *Upstream) OneTry() upstream.Source {
	if u.Once == nil {
		return u.Source
	}
	return u.Once
}

// Remote returns a repository's name at the upstream.
func (u *Upstream) Remote(repo string) upstream.Repo {
	return upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, repo)}
}

func (u *Upstream) check() error {
	if u.Name == "" || u.Source == nil || u.Lister == nil {
		return fmt.Errorf("mirror: upstream %q is incomplete", u.Name)
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
