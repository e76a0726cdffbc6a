package live

import (
	"slices"
	"sync"

	"dray/upstream/oci"
)

// shape has the children of a manifest that count for a pull. Only the field refs changes: it is
// the number of pulls that use the shape.
type shape struct {
	id        uint64
	manifests []uint64 // the manifests that an index names
	layers    []layer
	config    uint64
	refs      int
}

type layer struct {
	id   uint64
	size int64
}

// shapes has the shapes of the manifests in the table. Clients that pull the same image share them.
type shapes struct {
	mu       sync.Mutex // guards the fields below, and refs; locked after the mutex of a shard
	byDigest map[uint64]*shape
	parts    int
}

// acquire returns the shape of a manifest. The caller releases it. acquire calls parse only if no
// pull has the shape yet. All shapes together have at most maxParts parts (layers, manifests, and
// one for each shape). If the new shape would exceed this bound, acquire returns an empty shape.
func (s *shapes) acquire(t *Table, id uint64, parse func() *oci.Manifest) *shape {
	s.mu.Lock()
	if known := s.byDigest[id]; known != nil {
		known.refs++
		s.mu.Unlock()
		return known
	}
	s.mu.Unlock()
	made := t.shapeOf(id, parse())
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.byDigest[id]; known != nil { // made by another request meanwhile
		known.refs++
		return known
	}
	made.refs = 1
	if s.parts+made.parts() > maxParts {
		return &shape{id: id, refs: 1}
	}
	s.parts += made.parts()
	s.byDigest[id] = made
	return made
}

// release ends one use of a shape, and deletes the shape after its last use.
func (s *shapes) release(m *shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.refs--; m.refs == 0 && s.byDigest[m.id] == m {
		delete(s.byDigest, m.id)
		s.parts -= m.parts()
	}
}

func (s *shape) parts() int { return len(s.layers) + len(s.manifests) + 1 }

// shapeOf returns the shape of a manifest. man is nil if the manifest cannot be parsed, and the
// shape is then empty.
func (t *Table) shapeOf(id uint64, man *oci.Manifest) *shape {
	s := &shape{id: id}
	if man == nil {
		return s
	}
	if man.Config != nil {
		s.config = t.id(man.Config.Digest.String())
	}
	seen := map[uint64]bool{}
	for _, c := range man.Children() {
		id := t.id(c.Digest.String())
		switch {
		case seen[id] || c.Foreign() || id == s.config:
		case c.Manifest && len(s.manifests) < maxLayers:
			s.manifests = append(s.manifests, id)
		case !c.Manifest && len(s.layers) < maxLayers:
			s.layers = append(s.layers, layer{id, max(c.Size, 0)})
		}
		seen[id] = true
	}
	return s
}

// index returns the position of a layer in s.layers, or -1.
func (s *shape) index(id uint64) int {
	for i := range s.layers {
		if s.layers[i].id == id {
			return i
		}
	}
	return -1
}

// names reports whether the shape belongs to an index that names the given manifest.
func (s *shape) names(manifest uint64) bool {
	return slices.Contains(s.manifests, manifest)
}
