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

// Images yields the images of repositories whose name, UPSTREAM/REPOSITORY, matches the pattern, in
// which * stands for any characters; an empty one matches all. They come in order of name.
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

// matcher tells which places a pattern of repositories means: with the upstream's name before them
// or without.
func matcher(wanted string) func(located) bool {
	if wanted == "" {
		return func(located) bool { return true }
	}
	return func(p located) bool {
		return pattern.Match(wanted, p.upstream+"/"+p.repo) || pattern.Match(wanted, p.repo)
	}
}

func (s *snapshot) sorted() []located {
	first := func(p located) string {
		if tags := s.images[p]; len(tags) > 0 {
			return tags[0]
		}
		return "~" // after every tag
	}
	return slices.SortedFunc(maps.Keys(s.images), func(a, b located) int {
		return cmp.Or(strings.Compare(a.upstream, b.upstream), strings.Compare(a.repo, b.repo),
			strings.Compare(first(a), first(b)), strings.Compare(string(a.digest), string(b.digest)))
	})
}

// indexed are the places that an index of the same repository refers to.
func (s *snapshot) indexed() map[located]bool {
	out := map[located]bool{}
	for p := range s.images {
		n := s.nodes[p.digest]
		if n == nil {
			continue
		}
		for _, c := range n.children {
			if c.manifest && c.digest != p.digest {
				out[located{p.upstream, p.repo, c.digest}] = true
			}
		}
	}
	return out
}

func (s *snapshot) image(p located) api.Image {
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
