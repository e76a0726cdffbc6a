package repository

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

// Fallback is an upstream that dray asks in place of another one, whose name clients use. A client
// needs no rights but those for that name.
type Fallback struct {
	// To is what [Upstream.Reading] returns for the upstream to ask. It has the same name, so facts
	// and bytes are the same whatever name clients use.
	To *Upstream
	// NotFound says that To is also asked for what the upstreams before it do not have. Otherwise it
	// is asked only if one of them does not answer.
	NotFound bool
}

// Reading returns the upstream as a fallback of another one. It takes no pushes, and content of
// pushes to it that are under way is not in its repositories. last says that no other fallback
// follows, so that a failed request is worth repeating.
func (u *Upstream) Reading(last bool) *Upstream {
	r := *u
	r.Sink, r.Deleter, r.BuildCaches, r.Fallbacks, r.AcknowledgeLocally = nil, nil, nil, nil, false
	r.followed = !last
	return &r
}

// entry is a place to ask for the content of a repository.
type entry struct {
	repo Repo
	// notFound says that the entry is asked although those before it say "not found".
	notFound bool
}

// InTurn calls ask for the repository r. If its upstream does not answer, InTurn calls ask for the
// repository of the same name at each fallback of the upstream, until one has the content. d is the
// digest that is asked for, empty if that is a tag or a list. If may is not nil, InTurn leaves out
// the fallbacks for which may returns false. InTurn returns nil if ask did. If no call of ask
// succeeded, the error is the first one that says nothing about the content, because then nobody
// knows that there is no such content. Otherwise it is that of r.
func InTurn(ctx context.Context, r Repo, d digest.Digest, may func(*Upstream) bool, ask func(Repo) error) error {
	if len(r.Up.Fallbacks) == 0 {
		return ask(r)
	}
	var own, silent error
	borrowed := false
	for i, e := range entries(ctx, r, d, may) {
		borrowed = borrowed || e.repo != r && i == 0
		if i > 0 && !e.notFound && silent == nil {
			continue
		}
		err := ask(e.repo)
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case NotAnswered(err):
			silent = cmp.Or(silent, err)
		case e.repo == r && !borrowed && !oci.NotFound(err):
			return err // a refusal is an answer
		}
		if e.repo == r {
			own = err
		}
	}
	return cmp.Or(silent, own)
}

// NotAnswered reports whether the error means that the upstream did not say if it has the content.
func NotAnswered(err error) bool {
	return upstream.Transient(err) || errors.Is(err, context.DeadlineExceeded)
}

// entries returns the places to ask for a digest, in order. The repository is the first, unless it
// is not known to have the digest and a fallback has lent that. The lender of a manifest is asked
// first for all that the manifest names, which the others may not have.
func entries(ctx context.Context, r Repo, d digest.Digest, may func(*Upstream) bool) []entry {
	all := []entry{{repo: r}}
	known := d == ""
	if !known {
		_, known, _ = r.visible(ctx, d)
	}
	for _, f := range r.Up.Fallbacks {
		if may != nil && !may(f.To) {
			continue
		}
		e := entry{Repo{Up: f.To, Name: r.Name, store: r.store}, f.NotFound}
		if !known && lent(ctx, e.repo, r, d) {
			known = true
			for i := range all {
				all[i].notFound = true
			}
			all = append([]entry{e}, all...)
			continue
		}
		all = append(all, e)
	}
	return all
}

// borrower is the name under which the facts about a fallback remember what was lent to another
// upstream's repository. It is not the name of a repository, because it has a space.
func borrower(r Repo) string { return "for " + r.Up.Name + "/" + r.Name }

// lent reports whether a fallback has lent a digest to a repository.
func lent(ctx context.Context, from, to Repo, d digest.Digest) bool {
	_, err := to.store.o.Visibility.Get(ctx, from.Up.Name, borrower(to), d)
	return err == nil
}

// Lend remembers that a fallback has answered for a repository with the manifest m, or with a list
// of manifests. So requests for what the answer names go to that fallback, although they name the
// other repository, and even after its upstream has recovered. The fact makes nothing visible.
func Lend(ctx context.Context, from, to Repo, m digest.Digest, names []oci.Child) {
	links := append(childLinks(names), meta.Link{Digest: m})
	if !slices.ContainsFunc(links, func(l meta.Link) bool { return !lent(ctx, from, to, l.Digest) }) {
		return
	}
	for i := range links {
		links[i].LinkFact = meta.LinkFact{Size: -1, Kind: meta.KindBlob} // listings of images leave out blobs
	}
	to.store.Recorded(to.store.o.Visibility.Add(ctx, from.Up.Name, borrower(to), links...))
}
