package inventory

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/mirror/pattern"
)

// Images yields the images whose UPSTREAM/REPOSITORY, or REPOSITORY alone, matches the pattern.
// They are sorted by upstream, repository, first tag and digest. In the pattern, * matches any
// characters. An empty pattern matches all images.
func (v *Inventory) Images(ctx context.Context, pattern string) iter.Seq2[api.Image, error] {
	return func(yield func(api.Image, error) bool) {
		s, err := v.snapshot(ctx)
		if err != nil {
			yield(api.Image{}, err)
			return
		}
		indexed := s.indexed()
		match := matcher(pattern)
		for _, p := range s.sorted() {
			if !match(p) {
				continue
			}
			i := s.image(p)
			i.Part = len(i.Tags) == 0 && indexed[p]
			if !yield(i, ctx.Err()) {
				return
			}
		}
	}
}

// matcher returns a function that reports whether a pattern matches an image's repository, with
// or without the upstream's name.
func matcher(wanted string) func(imageKey) bool {
	if wanted == "" {
		return func(imageKey) bool { return true }
	}
	return func(p imageKey) bool {
		return pattern.Match(wanted, p.upstream+"/"+p.repo) || pattern.Match(wanted, p.repo)
	}
}

func (s *snapshot) sorted() []imageKey {
	first := func(p imageKey) string {
		if tags := s.images[p]; len(tags) > 0 {
			return tags[0]
		}
		return "~" // after every tag
	}
	return slices.SortedFunc(maps.Keys(s.images), func(a, b imageKey) int {
		return cmp.Or(strings.Compare(a.upstream, b.upstream), strings.Compare(a.repo, b.repo),
			strings.Compare(first(a), first(b)), strings.Compare(string(a.digest), string(b.digest)))
	})
}

// indexed returns the images that an index of the same repository refers to.
func (s *snapshot) indexed() map[imageKey]bool {
	out := map[imageKey]bool{}
	for p := range s.images {
		n := s.nodes[p.digest]
		if n == nil {
			continue
		}
		for _, c := range n.children {
			if c.manifest && c.digest != p.digest {
				out[imageKey{p.upstream, p.repo, c.digest}] = true
			}
		}
	}
	return out
}

func (s *snapshot) image(p imageKey) api.Image {
	i := api.Image{Upstream: p.upstream, Repository: p.repo, Digest: p.digest, Tags: append([]string{}, s.images[p]...), Queued: s.queued[p]}
	if n := s.nodes[p.digest]; n != nil {
		i.MediaType = n.mediaType
	}
	for _, c := range s.parts(p.digest) {
		i.Parts++
		info, held := s.view.Disk.Lookup(c.digest)
		if !held && c.digest == p.digest && i.Queued { // the queue itself has the manifest
			info, held = disk.Info{Size: c.size, Pinned: s.pinned[c.digest] != ""}, true
		}
		if !held {
			i.Bytes += max(0, c.size)
			continue
		}
		i.HeldParts++
		i.Bytes += info.Size
		i.HeldBytes += info.Size
		if use := info.LastUse.UTC(); use.After(i.LastUse) {
			i.LastUse = use
		}
		i.Pinned = i.Pinned || c.digest == p.digest && info.Pinned
	}
	return i
}
