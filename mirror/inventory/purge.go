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
	"dray/upstream/oci"
)

// Selection selects the content to purge: one name, or the repositories that a pattern matches (see
// Images).
type Selection struct {
	Name    Name
	Pattern string
	// Force also purges pinned content, and blobs that are being read. Their readers can read them to
	// the end. If Name is a digest without a repository, Force purges that blob even if images need
	// it.
	Force bool
	// DryRun makes Purge return what it would purge, and change nothing.
	DryRun bool
}

// Purge removes the tags and manifests that sel selects, and the blobs that nothing else needs. It
// returns ErrSelection if sel is invalid, and ErrNotHeld if dray knows nothing that sel selects. If
// all selected content has to stay, Purge returns the first of these errors that applies: ErrPinned
// if some of it stays only because of a pin and Force is not set, ErrQueued if some is still to be
// forwarded, or ErrHosted if some is hosted.
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
		return out, fmt.Errorf("%s: %w", cmp.Or(sel.Pattern, sel.Name.String()), err)
	}
	if !sel.DryRun {
		// Remove facts first: from now on a request asks the upstream, and does not find half an image.
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

// remove purges one blob and returns its fate. A dry run changes nothing. A blob that is needed,
// pinned or in use stays, except where sel.Force permits its removal.
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

// plan is the result of applying a selection to a snapshot.
type plan struct {
	tags   []Name
	images []imageKey // the images to purge, sorted
	loose  []digest.Digest
	queued bool       // a selected image is still to be forwarded, and stays
	hosted bool       // a selected image is hosted, and stays
	kept   []imageKey // selected images that are pinned, and stay; sorted
	pin    string     // the name of a pin that keeps a selected image or blob
	// shared are the blobs that remaining images need.
	shared map[digest.Digest]bool
}

// refusal returns why nothing can be purged, or nil if something can be purged.
func (p *plan) refusal() error {
	switch {
	case len(p.tags)+len(p.images)+len(p.loose) > 0:
		return nil
	case p.pin != "":
		return fmt.Errorf("%w by the pin %s; run dray unpin, or use --force", ErrPinned, p.pin)
	case p.queued:
		return ErrQueued
	case p.hosted:
		return ErrHosted
	}
	return ErrNotHeld
}

// String names the image in the form of [Name.String].
func (p imageKey) String() string {
	return Name{p.upstream, p.repo, referenceTo(p.digest)}.String()
}

// excludeKept removes from leaving, the images to purge, those that a purge must keep. These are
// the queued, the hosted and, unless force is set, the pinned ones. It records the reasons in p,
// also for an image of which only a tag is selected.
func (p *plan) excludeKept(s *snapshot, leaving map[imageKey]bool, tags map[Name]bool, force bool) {
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
			if len(s.images[at]) > 0 || !indexed[at] { // p.kept leaves out an untagged manifest to which an index refers
				p.kept = append(p.kept, at)
			}
		}
	}
}

// plan decides which tags and images are purged, and which blobs the remaining images need.
func (s *snapshot) plan(sel Selection) plan {
	tags, leaving := s.selected(sel)
	p := plan{shared: map[digest.Digest]bool{}}
	p.excludeKept(s, leaving, tags, sel.Force)
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
		if at.upstream == "" { // dray knows no repository of the image, so there are no facts to remove
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

// selected returns the tags and images that sel selects. A selection by tag includes the image only
// if the image has no other tag in the repository.
func (s *snapshot) selected(sel Selection) (map[Name]bool, map[imageKey]bool) {
	tags, images := map[Name]bool{}, map[imageKey]bool{}
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
			if len(all) > 1 { // another tag of the repository also points to the image
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

// followParts extends the map leaving: it adds the manifests that the indexes in the map refer to.
// A manifest stays if one of its tags stays, or if an index that stays also refers to it. It also
// stays if the queue or a pin keeps it.
func (s *snapshot) followParts(leaving map[imageKey]bool, tags map[Name]bool, force bool) {
	for {
		staying := map[imageKey]bool{}
		for at := range s.images {
			if n := s.nodes[at.digest]; n != nil && !leaving[at] {
				for _, c := range n.children {
					staying[imageKey{at.upstream, at.repo, c.digest}] = true
				}
			}
		}
		var more []imageKey
		for at := range leaving {
			n := s.nodes[at.digest]
			if n == nil {
				continue
			}
			for _, c := range n.children {
				part := imageKey{at.upstream, at.repo, c.digest}
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
	for _, images := range [][]imageKey{p.images, p.kept} {
		slices.SortFunc(images, func(a, b imageKey) int {
			return cmp.Or(strings.Compare(a.upstream, b.upstream), strings.Compare(a.repo, b.repo), cmp.Compare(a.digest, b.digest))
		})
	}
	slices.Sort(p.loose)
}

// blobs returns the parts of everything that is purged, each once.
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

// forget removes the facts about purged content: the meanings of the purged tags, the visibility
// and the referrers of the purged manifests, and the presence of the content at the registry. The
// visibility of layers stays, because clients ask for layers only after they have read a manifest.
// The presence must go: the registry may have lost the content. A recorded presence would then keep
// clients from pushing the content again, and dray may no longer have a copy to send for them.
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
		if err := v.Tags.Forget(ctx, at.upstream, at.repo, oci.FallbackTag(at.digest)); err != nil {
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

// held returns, by image, the digests whose presence [Inventory.forget] removes: all parts of a
// purged image, even parts that stay because other images need them. If the selection is the digest
// of a blob, held returns this blob for all images that need it.
func (p *plan) held(s *snapshot) map[imageKey][]digest.Digest {
	out := map[imageKey][]digest.Digest{}
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
