package repository

import (
	"errors"
	"fmt"
	"time"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Upstream is a registry as the mirror sees it: how to reach it, and how long
// its answers are believed.
type Upstream struct {
	// Name is unique among the upstreams. Facts, metrics and logs are kept under it.
	Name string
	// Registry is the registry's own name, for people and for CloudWatch.
	Registry string
	// Public is what whole names of its images begin with, such as docker.io;
	// empty means Registry.
	Public string
	// Source reads, and repeats what is worth a second try.
	Source upstream.Source
	// Once reads with a single attempt: see [Upstream.OneTry]. Nil means Source.
	Once upstream.Source
	// Sink takes pushes; nil refuses them.
	Sink upstream.Sink
	// AcknowledgeLocally answers a push when it is on stable storage here and
	// in the queue.
	AcknowledgeLocally bool
	// Deleter takes deletions; nil refuses them.
	Deleter upstream.Deleter
	// Lister lists tags and referrers.
	Lister upstream.Lister
	// RepositoryPrefix is put before every repository name at the upstream.
	RepositoryPrefix string
	// BuildCaches, when not nil, says where build caches go that are pushed here.
	BuildCaches *BuildCaches
	// Tags says how long answers about tags are believed.
	Tags TagPolicy
	// Split says how large blobs are fetched by several ranges at once. Its Part
	// is set by [Fetch]. The zero value fetches every blob by one request.
	Split cache.Split
}

// TagPolicy says how long answers about tags are believed.
type TagPolicy struct {
	// Fresh is how long a tag is served without a question.
	Fresh time.Duration
	// Revalidate is how long after that the old answer is still served at once, while the
	// upstream is asked in the background. It has no effect where Fresh is 0.
	Revalidate time.Duration
	// Stale is how long after the last answer a tag is still served while the upstream
	// fails.
	Stale time.Duration
	// NotFound is how long "not found" is believed.
	NotFound time.Duration
}

// BuildCaches says where the build caches go that are pushed to an upstream: somewhere
// else, where they cost less and are pruned. Clients notice nothing: a build cache is
// found under the name that it was pushed to.
type BuildCaches struct {
	// To is the upstream that stores them, one whose content is on this machine. It is asked
	// about each manifest and blob that the other one is asked for. It calls a repository
	// by the name of the other upstream and its own.
	To *Upstream
	// WriteBack forwards them to where they were pushed to as well, in the background.
	WriteBack bool
}

// TakesBuildCache says whether a manifest is one that goes to where build caches are stored.
func (u *Upstream) TakesBuildCache(man *oci.Manifest) bool {
	return u.BuildCaches != nil && man.BuildCache()
}

// OneTry reads with a single attempt: for questions whose answer is already at hand, if an old one.
func (u *Upstream) OneTry() upstream.Source {
	if u.Once == nil {
		return u.Source
	}
	return u.Once
}

// Remote is a repository's name at the upstream.
func (u *Upstream) Remote(repo string) upstream.Repo {
	return upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, repo)}
}

// check refuses an upstream that cannot work.
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
		return fmt.Errorf("mirror: upstream %q: build caches cannot be kept where nothing can be pushed and deleted", u.Name)
	case to == u || to.BuildCaches != nil:
		return fmt.Errorf("mirror: upstream %q: build caches are kept in a circle", u.Name)
	case oci.CheckRepo(u.Name) != nil:
		return errors.New("mirror: upstream \"" + u.Name + "\" cannot begin the name of a repository, as is needed for its build caches")
	}
	return nil
}
