package hosted

import (
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Image is a manifest of a repository, with the sorted tags that point to it.
type Image struct {
	Upstream, Repo string
	Digest         digest.Digest
	Tags           []string
}

// Images yields every manifest that is hosted, in no particular order.
func (s *Store) Images() iter.Seq[Image] {
	return func(yield func(Image) bool) {
		for _, r := range s.contents.all() {
			st := s.contents.stateOf(r)
			tags := map[digest.Digest][]string{}
			for _, name := range slices.Sorted(maps.Keys(st.tags)) {
				d := st.tags[name].Digest
				tags[d] = append(tags[d], name)
			}
			for d := range st.manifests {
				if !yield(Image{s.opts.Name, r.name, d, tags[d]}) {
					return
				}
			}
		}
	}
}
