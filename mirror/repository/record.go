package repository

import (
	"context"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

// PushedAccept is the Accept key of a fact about a tag that a push recorded. It holds for every
// client that takes the pushed media type, since no registry converts then.
const PushedAccept = "pushed"

// recordSeen records that the upstream gave digests, or took them.
func (r Repo) recordSeen(ctx context.Context, links ...meta.Link) {
	r.store.Recorded(r.store.o.Visibility.Add(ctx, r.Up.Name, anywhere, links...))
}

// confirmed records that the upstream has a blob in the repository. size is in bytes, -1 where it
// is not verified yet.
func (r Repo) confirmed(ctx context.Context, d digest.Digest, size int64) {
	link := meta.Link{Digest: d, LinkFact: meta.LinkFact{MediaType: octetStream, Size: size, Kind: meta.KindBlob}}
	r.recordSeen(ctx, link)
	if _, err := r.store.o.Visibility.Get(ctx, r.Up.Name, r.Name, d); err != nil { // what a manifest says of it is more
		r.store.Recorded(r.store.o.Visibility.Add(ctx, r.Up.Name, r.Name, link))
	}
}

// PresentAtTarget reports whether the upstream confirmed content some time ago.
func (r Repo) PresentAtTarget(ctx context.Context, d digest.Digest) bool {
	_, ok, _ := remembered(ctx, r, d)
	return ok
}

// RecordAtTarget records that the upstream has a blob of so many bytes in the repository, so that a
// push may leave it out. Nothing is recorded of an upstream that takes no pushes.
func (r Repo) RecordAtTarget(ctx context.Context, d digest.Digest, size int64) {
	if r.Up.Sink == nil {
		return
	}
	blob := meta.Holding{Digest: d, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob, Size: size}}
	r.store.Recorded(r.store.o.Presence.Add(ctx, r.Up.Name, r.Name, blob))
}

// Send sends a blob to the upstream and records that it has the blob. blob is called afterwards,
// for what the bytes turned out to be.
func (r Repo) Send(ctx context.Context, how upstream.Call, u upstream.Upload, blob func() (digest.Digest, int64)) error {
	if err := r.Up.Sink.PutBlob(ctx, r.Remote().With(how), u); err != nil {
		return err
	}
	d, size := blob()
	r.RecordAtTarget(ctx, d, size)
	return nil
}

// RecordMounted records that the upstream has taken a blob from another repository into this one.
// The client's next request may be a HEAD, to which a size belongs.
func (r Repo) RecordMounted(ctx context.Context, d digest.Digest) {
	size, held := r.store.o.Cache.Stat(d)
	if !held {
		var err error
		if size, err = r.Up.Source.StatBlob(ctx, r.Remote(), d); err != nil {
			return // it is asked again when it matters
		}
	}
	r.ForgetReference(ctx, oci.Reference{Digest: d})
	r.RecordAtTarget(ctx, d, size)
}

// Elsewhere returns another repository of the upstream that holds a blob under a manifest, if one
// is known.
func (r Repo) Elsewhere(ctx context.Context, d digest.Digest) (Repo, bool) {
	from, err := r.store.o.Presence.Home(ctx, r.Up.Name, d)
	return r.store.Repo(r.Up, from), err == nil && from != r.Name
}

// Store stores a manifest that came from the upstream or is there now, and records what it says of
// those of its children that the registry confirms by having it. Nothing here may fail the pull.
func (r Repo) Store(ctx context.Context, man *oci.Manifest, confirmed []oci.Child) {
	s := r.store
	if err := s.o.Cache.Put(ctx, cache.Blob{Digest: man.Digest, Size: int64(len(man.Raw))}, man.Raw); err != nil {
		s.o.Logger.Debug("manifest not cached", "digest", man.Digest, "error", err)
	}
	self := meta.Link{Digest: man.Digest, LinkFact: meta.LinkFact{MediaType: man.MediaType, Size: int64(len(man.Raw)), Kind: meta.KindManifest}}
	children := childLinks(confirmed)
	s.Recorded(s.o.Visibility.Add(ctx, r.Up.Name, r.Name, append(children, self)...))
	r.recordSeen(ctx, self)
	if r.Up.Sink == nil {
		return
	}
	held := []meta.Holding{{Digest: self.Digest, PresenceFact: meta.PresenceFact{Kind: self.Kind, Size: self.Size, Referenced: true}}}
	for _, c := range children {
		held = append(held, meta.Holding{Digest: c.Digest, PresenceFact: meta.PresenceFact{Kind: c.Kind, Size: c.Size, Referenced: true}})
	}
	s.Recorded(s.o.Presence.Add(ctx, r.Up.Name, r.Name, held...))
}

// StorePushed stores a manifest that the upstream has accepted, and records what the upstream now
// has: the manifest, and the children that it was waited for. The tag is forgotten first, so that
// no answer that was on its way meanwhile can bring the old one back. What was staged of the
// children is released.
func (r Repo) StorePushed(ctx context.Context, ref oci.Reference, man *oci.Manifest, children []oci.Child) {
	s := r.store
	r.Store(ctx, man, children)
	r.recordSeen(ctx, childLinks(children)...)
	r.ForgetReference(ctx, oci.Reference{Digest: man.Digest})
	if ref.Tag != "" {
		r.ForgetReference(ctx, ref)
		key := meta.TagKey{Upstream: r.Up.Name, Repo: r.Name, Tag: ref.Tag, Accept: PushedAccept}
		s.Recorded(s.o.Tags.Set(ctx, key, meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw))}, 0))
	}
	s.o.Staged.Drop(Keys(r, children)...)
}

// Keys are the keys of a manifest's children: what a push may have staged for it.
func Keys(r Repo, children []oci.Child) []Key {
	var keys []Key
	for _, c := range children {
		keys = append(keys, r.Key(c.Digest))
	}
	return keys
}

// Children are what the registry of a manifest has to hold for it, each once.
func Children(man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(oci.Child) bool { return false })
}

// Needed are what a push waits for: the [Children], and the foreign layers that the repository has,
// because its client sent them as well.
func (r Repo) Needed(ctx context.Context, man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(c oci.Child) bool {
		at, _ := r.LocateBlob(ctx, c.Digest, Wait)
		return at.Place != Nowhere
	})
}

// childrenWith are the children of a manifest, each once, and of the foreign ones those that with
// picks.
func childrenWith(man *oci.Manifest, with func(oci.Child) bool) []oci.Child {
	var all []oci.Child
	seen := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if !seen[c.Digest] && (!c.Foreign() || with(c)) {
			seen[c.Digest] = true
			all = append(all, c)
		}
	}
	return all
}

// childLinks are what a manifest says of its children.
func childLinks(children []oci.Child) []meta.Link {
	var links []meta.Link
	for _, c := range children {
		kind := meta.KindBlob
		if c.Manifest {
			kind = meta.KindManifest
		}
		links = append(links, meta.Link{Digest: c.Digest, LinkFact: meta.LinkFact{MediaType: c.MediaType, Size: c.Size, Kind: kind}})
	}
	return links
}

// ForgetReference drops what is known of a tag, or that a digest was not found, and answers about
// it that are on their way.
func (r Repo) ForgetReference(ctx context.Context, ref oci.Reference) {
	if ref.ByDigest() {
		r.store.Recorded(r.store.absences.Forget(ctx, r.Up.Name, r.Name, ref.Digest))
		return
	}
	r.store.Recorded(r.store.o.Tags.Forget(ctx, r.Up.Name, r.Name, ref.Tag))
}

// ForgetManifest drops what is known of a manifest and its children. Without its link no fact about
// a tag leads to it any more, and each child is asked for when it matters: another manifest may
// still need it.
func (r Repo) ForgetManifest(ctx context.Context, d digest.Digest) {
	gone := []digest.Digest{d}
	if m := r.Held(ctx, d); m != nil {
		if man, err := m.Parse(); err == nil {
			for _, c := range man.Children() {
				gone = append(gone, c.Digest)
			}
		}
	}
	r.Forget(ctx, gone...)
}

// Forget drops the facts that let the repository see digests, and those that let pushes leave them
// out.
func (r Repo) Forget(ctx context.Context, ds ...digest.Digest) {
	r.ForgetAtTarget(ctx, ds...)
	for _, d := range ds {
		r.store.Recorded(r.store.o.Visibility.Forget(ctx, r.Up.Name, r.Name, d))
		r.ForgetReference(ctx, oci.Reference{Digest: d})
	}
}

// ForgetChildren drops the facts that the upstream has a manifest's children, because it has proven
// them wrong.
func (r Repo) ForgetChildren(ctx context.Context, man *oci.Manifest) {
	var ds []digest.Digest
	for _, c := range man.Children() {
		ds = append(ds, c.Digest)
	}
	r.ForgetAtTarget(ctx, ds...)
}

// ForgetAtTarget drops the facts that the upstream has digests, because it has proven them wrong.
func (r Repo) ForgetAtTarget(ctx context.Context, ds ...digest.Digest) {
	r.store.Recorded(r.store.o.Presence.Forget(ctx, r.Up.Name, r.Name, ds...))
}
