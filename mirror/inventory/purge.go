package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/mirror/admin/api"
)

// Selection says what to purge: one name, or the repositories that a pattern matches (see Images).
type Selection struct {
	Name    Name
	Pattern string
	// Force takes what is pinned, what is being read, and a blob that is named itself and that
	// images need, too. Who reads it reads on.
	Force bool
	// DryRun changes nothing.
	DryRun bool
}

// Purge forgets the tags and manifests that sel names, and removes the blobs that nothing else
// needs. It returns ErrNotHeld where nothing is known of what was named, ErrHosted where all of it
// is hosted, ErrQueued where all of it is still to be forwarded, ErrPinned where all of it is
// pinned and sel does not force it, and ErrSelection where nothing was named.
func (v *Inventory) Purge(ctx context.Context, sel Selection) (api.Purged, error) {
	out := api.Purged{Tags: []string{}, Images: []string{}, Blobs: []api.Gone{}, DryRun: sel.DryRun}
	if named := sel.Name != (Name{}); named == (sel.Pattern != "") {
		return out, ErrSelection
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return out, err
	}
	p := s.plan(sel)
	if err := p.refusal(); err != nil {
		return out, fmt.Errorf("%s is %w", cmp.Or(sel.Pattern, sel.Name.String()), err)
	}
	if !sel.DryRun {
		// Facts first: who asks from now on asks the upstream, and does not find half an image.
		if err := v.forget(ctx, s, p); err != nil {
			return out, err
		}
	}
	for _, t := range p.tags {
		out.Tags = append(out.Tags, t.String())
	}
	for _, at := range p.images {
		out.Images = append(out.Images, Name{at.upstream, at.repo, referenceTo(at.digest)}.String())
	}
	for _, at := range p.kept {
		out.Kept = append(out.Kept, at.String())
	}
	for _, c := range p.blobs(s) {
		g := v.remove(ctx, c, p.shared[c.digest], sel)
		if g.Fate == api.FateRemoved {
			out.RemovedBytes += g.Size
		}
		out.Blobs = append(out.Blobs, g)
	}
	return out, ctx.Err()
}

// remove decides about one blob.
func (v *Inventory) remove(ctx context.Context, c child, shared bool, sel Selection) api.Gone {
	info, held := v.Disk.Lookup(c.digest)
	g := api.Gone{Digest: c.digest, Size: info.Size}
	switch {
	case !held:
		g.Fate = api.FateNotHeld
	case shared && !(sel.Force && c.digest == sel.Name.Digest && sel.Name.Upstream == ""):
		g.Fate = api.FateShared
	case info.Pinned && !sel.Force:
		g.Fate = api.FatePinned
	case info.Open && !sel.Force:
		g.Fate = api.FateInUse
	case sel.DryRun:
		g.Fate = api.FateRemoved
	default:
		unless := disk.UnlessInUse
		if sel.Force {
			unless = disk.UnlessNeeded
		}
		switch err := v.Cache.Purge(ctx, c.digest, unless); {
		case err == nil:
			g.Fate = api.FateRemoved
		case errors.Is(err, cache.ErrInUse):
			g.Fate = api.FateInUse
		default:
			g.Fate, g.Error = api.FateFailed, err.Error()
		}
	}
	return g
}

// plan is what a purge takes away, as of a snapshot.
type plan struct {
	tags   []Name
	images []located // whose links go, in order
	loose  []digest.Digest
	queued bool      // some of what was named is still to be forwarded, and stays
	hosted bool      // some of what was named is hosted, and stays
	kept   []located // what was named and is pinned, and stays; in order
	pin    string    // one that keeps some of it
	// shared are the blobs that what stays needs.
	shared map[digest.Digest]bool
}

// refusal is why nothing of what was named goes, if so.
func (p *plan) refusal() error {
	switch {
	case len(p.tags)+len(p.images)+len(p.loose) > 0:
		return nil
	case p.pin != "":
		return fmt.Errorf("%w, as %s: dray unpin ends that, and --force purges it all the same", ErrPinned, p.pin)
	case p.queued:
		return ErrQueued
	case p.hosted:
		return ErrHosted
	}
	return ErrNotHeld
}

// String names the image as operators do.
func (p located) String() string {
	return Name{p.upstream, p.repo, referenceTo(p.digest)}.String()
}

// keep takes what stays in any case out of what leaves. Of a tag that goes alone the image stays,
// too, and so does the tag if that is pinned.
func (p *plan) keep(s *snapshot, leaving map[located]bool, tags map[Name]bool, force bool) {
	indexed := s.indexed()
	for at := range s.images {
		named := leaving[at]
		for _, t := range s.images[at] {
			named = named || tags[Name{at.upstream, at.repo, tagged(t)}]
		}
		switch pin := s.pinned[at.digest]; {
		case !named:
		case s.queued[at]:
			p.queued = true
			delete(leaving, at)
		case s.hosted[at]:
			p.hosted = true
			delete(leaving, at)
		case pin != "" && !force:
			p.pin = pin
			delete(leaving, at)
			if len(s.images[at]) > 0 || !indexed[at] { // else the index tells of it
				p.kept = append(p.kept, at)
			}
		}
	}
}

// plan decides which tags and places go, and what those that stay need.
func (s *snapshot) plan(sel Selection) plan {
	tags, leaving := s.selected(sel)
	p := plan{shared: map[digest.Digest]bool{}}
	p.keep(s, leaving, tags, sel.Force)
	s.followParts(leaving, tags, sel.Force)
	for at, all := range s.images {
		stays := !leaving[at]
		for _, t := range all {
			n := Name{at.upstream, at.repo, tagged(t)}
			switch {
			case !tags[n], s.hosted[at], s.queued[at], s.pinned[at.digest] != "" && !sel.Force:
			default:
				p.tags = append(p.tags, n)
			}
		}
		if stays {
			for _, c := range s.parts(at.digest) {
				p.shared[c.digest] = true
			}
			continue
		}
		if at.upstream == "" { // nobody's: there are no facts to forget
			p.loose = append(p.loose, at.digest)
			continue
		}
		p.images = append(p.images, at)
	}
	if d := sel.Name.Digest; sel.Name.Upstream == "" && d != "" && s.nodes[d] == nil { // a blob
		if pin := s.pinned[d]; pin != "" && !sel.Force {
			p.pin = pin
		} else if _, held := s.view.Disk.Lookup(d); held {
			p.loose = append(p.loose, d)
		}
	}
	p.sort()
	return p
}

// selected are the tags that sel names, and the places that go with them.
func (s *snapshot) selected(sel Selection) (map[Name]bool, map[located]bool) {
	tags, images := map[Name]bool{}, map[located]bool{}
	match := matcher(sel.Pattern)
	n := sel.Name
	for at, all := range s.images {
		switch {
		case sel.Pattern != "":
			if !match(at) || at.upstream == "" {
				continue
			}
		case n.Upstream == "":
			if at.digest != n.Digest {
				continue
			}
		case at.upstream != n.Upstream || at.repo != n.Repo:
			continue
		case n.ByDigest():
			if at.digest != n.Digest {
				continue
			}
		default:
			if !slices.Contains(all, n.Tag) {
				continue
			}
			tags[n] = true
			if len(all) > 1 { // another tag of the repository points to it, too
				continue
			}
		}
		images[at] = true
		if sel.Pattern != "" || n.ByDigest() {
			for _, t := range all {
				tags[Name{at.upstream, at.repo, tagged(t)}] = true
			}
		}
	}
	return tags, images
}

// followParts adds to what leaves the manifests that an index which leaves refers to, unless they
// have a tag that stays, or an index that stays refers to them as well, or a pin keeps them.
func (s *snapshot) followParts(leaving map[located]bool, tags map[Name]bool, force bool) {
	for {
		staying := map[located]bool{}
		for at := range s.images {
			if n := s.nodes[at.digest]; n != nil && !leaving[at] {
				for _, c := range n.children {
					staying[located{at.upstream, at.repo, c.digest}] = true
				}
			}
		}
		var more []located
		for at := range leaving {
			n := s.nodes[at.digest]
			if n == nil {
				continue
			}
			for _, c := range n.children {
				part := located{at.upstream, at.repo, c.digest}
				all, known := s.images[part]
				keepsTag := slices.ContainsFunc(all, func(t string) bool { return !tags[Name{at.upstream, at.repo, tagged(t)}] })
				keepsTag = keepsTag || s.queued[part] || s.pinned[c.digest] != "" && !force
				if c.manifest && known && !leaving[part] && !keepsTag && !staying[part] {
					more = append(more, part)
				}
			}
		}
		if len(more) == 0 {
			return
		}
		for _, at := range more {
			leaving[at] = true
		}
	}
}

func (p *plan) sort() {
	slices.SortFunc(p.tags, func(a, b Name) int { return strings.Compare(a.String(), b.String()) })
	p.tags = slices.Compact(p.tags)
	for _, images := range [][]located{p.images, p.kept} {
		slices.SortFunc(images, func(a, b located) int {
			return cmp.Or(strings.Compare(a.upstream, b.upstream), strings.Compare(a.repo, b.repo), cmp.Compare(a.digest, b.digest))
		})
	}
	slices.Sort(p.loose)
}

// blobs are the parts of everything that goes, each once.
func (p *plan) blobs(s *snapshot) []child {
	var out []child
	seen := map[digest.Digest]bool{}
	add := func(root digest.Digest) {
		for _, c := range s.parts(root) {
			if !seen[c.digest] {
				seen[c.digest] = true
				out = append(out, c)
			}
		}
	}
	for _, at := range p.images {
		add(at.digest)
	}
	for _, d := range p.loose {
		add(d)
	}
	return out
}

// forget makes what goes invisible: tags for every Accept, and manifests in their repositories.
// That a repository may see the layers stays true, and is no use without them. That its registry
// has them is no longer believed: a client that pushes them again must not leave out what could not
// be sent from here.
func (v *Inventory) forget(ctx context.Context, s *snapshot, p plan) error {
	for _, t := range p.tags {
		if err := v.Tags.Forget(ctx, t.Upstream, t.Repo, t.Tag); err != nil {
			return err
		}
	}
	for _, at := range p.images {
		if err := v.Visibility.Forget(ctx, at.upstream, at.repo, at.digest); err != nil {
			return err
		}
	}
	for at, gone := range p.held(s) {
		if err := v.Presence.Forget(ctx, at.upstream, at.repo, gone...); err != nil {
			return err
		}
	}
	return nil
}

// held are the digests that go, by the repositories whose registry may be thought to have them. A
// blob that was named by itself belongs to all that need it.
func (p *plan) held(s *snapshot) map[located][]digest.Digest {
	out := map[located][]digest.Digest{}
	for at := range s.images {
		if at.upstream == "" {
			continue
		}
		whole := slices.Contains(p.images, at)
		for _, c := range s.parts(at.digest) {
			if whole || slices.Contains(p.loose, c.digest) {
				out[at] = append(out[at], c.digest)
			}
		}
	}
	return out
}
