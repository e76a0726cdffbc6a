package inventory

import (
	"bytes"
	"context"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/cache/meta"
	"dray/upstream/oci"
)

// imageKey is a manifest in a repository. upstream and repo are empty if no fact names the
// repository of the manifest.
type imageKey struct {
	upstream, repo string
	digest         digest.Digest
}

// node is a held manifest.
type node struct {
	mediaType string
	size      int64
	children  []child
}

// child is a blob or manifest that a manifest needs.
type child struct {
	digest   digest.Digest
	size     int64
	manifest bool
}

// snapshot is the state of the facts, hosted repositories, queue, pins and held manifests, all read
// at about the same time.
type snapshot struct {
	view *Inventory
	// images are the manifests of repositories, with their sorted tags, and the manifests that
	// readUnowned finds.
	images map[imageKey][]string
	// hosted are the images of hosted repositories. They are never purged.
	hosted map[imageKey]bool
	// queued are the images that are still to be forwarded. Until they have been forwarded, they are
	// not purged.
	queued map[imageKey]bool
	// pinned are the names of pins, by the digests that they keep.
	pinned map[digest.Digest]string
	// nodes are the held manifests.
	nodes map[digest.Digest]*node
}

// snapshot reads the facts and every held manifest.
func (v *Inventory) snapshot(ctx context.Context) (*snapshot, error) {
	s := &snapshot{view: v, images: map[imageKey][]string{}, hosted: map[imageKey]bool{}, queued: map[imageKey]bool{}, pinned: map[digest.Digest]string{}, nodes: map[digest.Digest]*node{}}
	for _, p := range v.Disk.Pins() {
		for _, d := range p.Blobs {
			s.pinned[d] = p.Name
		}
	}
	for _, step := range []func(context.Context) error{s.readTags, s.readVisibility, s.readHosted, s.readQueued, s.readImages, s.readUnowned} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *snapshot) readTags(ctx context.Context) error {
	for t, err := range s.view.Tags.All(ctx, "") {
		if err != nil {
			return err
		}
		if t.NotFound {
			continue
		}
		p := imageKey{t.Upstream, t.Repo, t.Digest}
		if at, found := slices.BinarySearch(s.images[p], t.Tag); !found { // a tag may have several facts, one for each Accept
			s.images[p] = slices.Insert(s.images[p], at, t.Tag)
		}
	}
	return nil
}

func (s *snapshot) readVisibility(ctx context.Context) error {
	for l, err := range s.view.Visibility.All(ctx, "") {
		if err != nil {
			return err
		}
		if p := (imageKey{l.Upstream, l.Repo, l.Digest}); l.Kind == meta.KindManifest && l.Repo != "" {
			if _, tagged := s.images[p]; !tagged {
				s.images[p] = nil // listed without tags
			}
		}
	}
	return nil
}

func (s *snapshot) readHosted(context.Context) error {
	if s.view.Hosted == nil {
		return nil
	}
	for h := range s.view.Hosted {
		p := imageKey{h.Upstream, h.Repo, h.Digest}
		s.images[p], s.hosted[p] = h.Tags, true
	}
	return nil
}

// readQueued adds the queued pushes. In the snapshot, a tag with queued pushes points to the newest
// of them, as it does for clients. The registry may still have another manifest under the tag.
func (s *snapshot) readQueued(ctx context.Context) error {
	if s.view.Queued == nil {
		return nil
	}
	for q := range s.view.Queued {
		p := imageKey{q.Upstream, q.Repo, q.Digest}
		s.queued[p] = true
		if q.Tag != "" {
			s.untag(q.Upstream, q.Repo, q.Tag)
			s.images[p] = append(s.images[p], q.Tag)
			slices.Sort(s.images[p])
		} else if _, listed := s.images[p]; !listed {
			s.images[p] = nil
		}
		if err := s.addNode(ctx, p.digest, q.Manifest); err != nil {
			return err
		}
	}
	return nil
}

// untag removes a tag from the image that it points to.
func (s *snapshot) untag(upstream, repo, tag string) {
	for p, tags := range s.images {
		if at, found := slices.BinarySearch(tags, tag); found && p.upstream == upstream && p.repo == repo {
			s.images[p] = slices.Delete(slices.Clone(tags), at, at+1)
		}
	}
}

func (s *snapshot) readImages(ctx context.Context) error {
	for p := range s.images {
		if err := s.read(ctx, p.digest, true); err != nil {
			return err
		}
	}
	return nil
}

// readUnowned finds the held manifests that the steps before it did not find. It reads the blobs
// that could be a manifest.
func (s *snapshot) readUnowned(ctx context.Context) error {
	known := map[digest.Digest]struct{}{}
	for d, n := range s.nodes {
		known[d] = struct{}{}
		for _, c := range n.children {
			known[c.digest] = struct{}{}
		}
	}
	var found []digest.Digest
	err := s.view.Disk.List(ctx, func(i disk.Info) bool {
		if _, is := known[i.Digest]; !is && i.Size <= oci.MaxManifestBytes && s.object(i.Digest) {
			found = append(found, i.Digest)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, d := range found {
		if err := s.read(ctx, d, false); err != nil {
			return err
		}
	}
	owned := map[digest.Digest]bool{}
	for p := range s.images {
		owned[p.digest] = true
	}
	for _, d := range found {
		if s.nodes[d] != nil && !owned[d] {
			s.images[imageKey{digest: d}] = nil
		}
	}
	return nil
}

// object reports whether a blob begins like a JSON object.
func (s *snapshot) object(d digest.Digest) bool {
	b, err := s.view.Disk.Peek(d)
	if err != nil {
		return false
	}
	defer b.Close()
	var head [16]byte
	n, err := b.ReadAt(head[:], 0)
	return (err == nil || err == io.EOF) && bytes.HasPrefix(bytes.TrimLeft(head[:n], " \t\r\n"), []byte("{"))
}

// read adds a node for a manifest and for each manifest that it refers to, as far as they are held.
// If isManifest is true, d is known to be a manifest, and read adds a node even if it cannot parse
// d.
func (s *snapshot) read(ctx context.Context, d digest.Digest, isManifest bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.nodes[d] != nil {
		return nil
	}
	raw, err := s.view.Cache.Peek(ctx, d, oci.MaxManifestBytes)
	if err != nil {
		return ctx.Err() // it is not held, or cannot be read
	}
	m, err := oci.ReadManifest("", raw)
	if err != nil && !isManifest {
		return nil
	}
	return s.addNode(ctx, d, m)
}

// addNode adds a manifest to the nodes under the given digest, and reads the manifests that it
// refers to.
func (s *snapshot) addNode(ctx context.Context, d digest.Digest, m *oci.Manifest) error {
	n := &node{mediaType: m.MediaType, size: int64(len(m.Raw))}
	s.nodes[d] = n // before the loop, so that the recursion ends if the manifest names itself
	for _, c := range m.Children() {
		if _, held := s.view.Disk.Lookup(c.Digest); c.Foreign() && !held {
			continue
		}
		n.children = append(n.children, child{c.Digest, c.Size, c.Manifest})
		if c.Manifest {
			if err := s.read(ctx, c.Digest, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts returns the manifest whose digest is root, followed by all parts that it refers to,
// directly or through other manifests, as far as they are known. Each part appears once. The size
// of root is -1 if it has no node; the other sizes come from the descriptors.
func (s *snapshot) parts(root digest.Digest) []child {
	size := int64(-1)
	if n := s.nodes[root]; n != nil {
		size = n.size
	}
	all := []child{{root, size, true}}
	seen := map[digest.Digest]bool{root: true}
	for i := 0; i < len(all); i++ {
		n := s.nodes[all[i].digest]
		if n == nil {
			continue
		}
		for _, c := range n.children {
			if !seen[c.digest] {
				seen[c.digest] = true
				all = append(all, c)
			}
		}
	}
	return all
}
