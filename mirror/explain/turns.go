package explain

import (
	"github.com/opencontainers/go-digest"

	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// turns determines which upstream answers: the upstream of the repository that the client names, or
// a fallback.
type turns struct {
	named repository.Repo
	may   func(*repository.Upstream) bool
	// lender is the repository of the fallback that would answer with the manifest that names the
	// content. It is nil if no fallback would answer.
	lender *repository.Repo
	// The fields below describe the upstream whose turn it is.
	repo     repository.Repo
	registry Registry
	local    bool // the repository is hosted
}

// [walk.at] returns a copy of the walk in which it is the turn of the repository r.
func (w *walk) at(r repository.Repo) *walk {
	other := *w
	other.repo = r
	registry, known := w.o.Registries[r.Up.Name]
	other.registry, other.local = registry, !known
	if !repository.Same(r, w.named) {
		other.lender = &r
	}
	return &other
}

// order returns the repositories that dray would ask for a digest, in order. An empty digest means
// a tag.
func (w *walk) order(d digest.Digest) []repository.Turn {
	if len(w.named.Up.Fallbacks) == 0 || w.local {
		return []repository.Turn{{Repo: w.repo}}
	}
	all := repository.Turns(w.ctx, w.named, d, w.may)
	if w.lender == nil || d == "" || !repository.Same(all[0].Repo, w.named) {
		return all
	}
	// In a pull, dray asks the lender first for all content that the manifest names.
	out := []repository.Turn{{Repo: *w.lender}}
	for _, t := range all {
		if !repository.Same(t.Repo, *w.lender) {
			out = append(out, repository.Turn{Repo: t.Repo, NotFound: true})
		}
	}
	return out
}

// [walk.first] returns the walk for the repository that answers, as [repository.InTurn] chooses it.
// probe reports whether a repository has the content, and whether the repository is silent: dray
// would have to ask its upstream, but does not, because that upstream fails. If no repository
// answers, [walk.first] returns the walk for w.named.
func (w *walk) first(d digest.Digest, probe func(*walk) (has, silent bool)) *walk {
	before := false
	for i, t := range w.order(d) {
		if i > 0 && !t.NotFound && !before {
			continue
		}
		at := w.at(t.Repo)
		has, silent := probe(at)
		if has {
			return at
		}
		before = before || silent
	}
	return w.at(w.named)
}

// whoseManifest returns the walk for the repository that would answer with a manifest, and the
// outlook for the manifest there.
func (w *walk) whoseManifest(ref oci.Reference, named bool) (*walk, pull.Outlook) {
	if w.local {
		return w, w.look(ref, named)
	}
	at := w.first(ref.Digest, func(at *walk) (has, silent bool) {
		o := at.look(ref, named)
		silent = o.Asks && !o.Background && !o.MayServeOld && at.admission(o.Held).Refusal != ""
		return !silent && o.Absent == nil, silent
	})
	return at, at.look(ref, named)
}

// whoseBlob returns the walk for the repository that would answer with a blob, and the location of
// the blob there. The error is the upstream's last "not found", if dray still relies on it.
func (w *walk) whoseBlob(d digest.Digest, named bool) (*walk, repository.Location, error) {
	find := func(at *walk) (repository.Location, error) {
		return repository.Foresight{Repo: at.repo, Named: named}.Blob(w.ctx, d, w.need)
	}
	at := w
	if !w.local {
		at = w.first(d, func(at *walk) (has, silent bool) {
			found, err := find(at)
			h := w.o.Cache.Inspect(d)
			asks := found.Place == repository.Shared || !h.Held() && !h.Arriving && !at.inTier(d, found, named)
			silent = err == nil && asks && at.admission(false).Refusal != ""
			return err == nil && !silent, silent
		})
	}
	found, err := find(at)
	return at, found, err
}

// inTier is for a blob whose bytes this dray does not have. It reports whether they would come from
// the tier.
func (w *walk) inTier(d digest.Digest, at repository.Location, named bool) bool {
	switch {
	case w.repo.Up.Tier == nil:
		return false
	case at.Place == repository.Shared:
		return true // a blob that is not here is Shared only if the tier has it
	case at.Place == repository.Visible:
		return repository.Foresight{Repo: w.repo, Named: named}.InTier(w.ctx, d)
	}
	return false
}
