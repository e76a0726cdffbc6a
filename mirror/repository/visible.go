package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/meta"
	"dray/upstream/oci"
)

// octetStream is the media type of a blob that no manifest describes.
const octetStream = "application/octet-stream"

// anywhere replaces the name of the repository in facts about an upstream as a whole. No repository
// has an empty name.
const anywhere = ""

// visible reports whether dray may serve a digest from the repository without asking the upstream.
// It also returns the link of the digest, if any (see [meta.Visibility]). A digest is visible if
// the upstream has confirmed that the repository has it. It is also visible if a manifest of the
// repository names it, and the upstream has sent or accepted content with this digest in any of its
// repositories. A manifest alone proves nothing, because a client can push a manifest that names
// any digest. Until the upstream accepts this manifest, nobody has checked that the upstream has
// the content.
func (r Repo) visible(ctx context.Context, d digest.Digest) (meta.LinkFact, bool, error) {
	key := r.Key(d)
	if s, ok := r.store.linkCache.Get(key); ok && s.lease.Valid(time.Now()) {
		return s.link, true, nil
	}
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, r.store.o.Visibility.Under(lease), r, d)
	if visible {
		r.store.linkCache.Add(key, cachedLink{link, lease})
	}
	return link, visible, err
}

// lookUp does what the method visible does, but without linkCache. The error is [meta.ErrNotFound]
// if there is no link.
func lookUp(ctx context.Context, links *meta.Visibility, r Repo, d digest.Digest) (meta.LinkFact, bool, error) {
	both, err := links.In(ctx, r.Up.Name, d, r.Name, anywhere)
	switch {
	case err != nil:
		return meta.LinkFact{}, false, err
	case both[0] == nil:
		return meta.LinkFact{}, false, meta.ErrNotFound
	}
	return *both[0], both[1] != nil, nil
}

// Given returns the manifest d, about which another member of the fleet has answered, if the facts
// make it visible to the repository r now. Otherwise it returns nil. raw has the bytes that the
// member sent. The caller has verified that they have the digest. If the bytes were here already,
// the member sent none, and raw is empty.
func Given(ctx context.Context, r Repo, d digest.Digest, raw []byte) *Manifest {
	link, visible, err := lookUp(ctx, r.store.o.Visibility.Now(), r, d)
	if err != nil || !visible || link.Kind != meta.KindManifest {
		return nil
	}
	if len(raw) == 0 {
		return r.Held(ctx, d)
	}
	if err := r.store.o.Cache.Put(ctx, cache.Blob{Digest: d, Size: int64(len(raw))}, raw); err != nil {
		r.store.o.Logger.Debug("manifest not cached", "digest", d, "error", err)
	}
	r.Up.keep(d, int64(len(raw)))
	return &Manifest{Raw: raw, Digest: d, MediaType: link.MediaType}
}

// Held returns the manifest d if it is visible to the repository, and the cache or the tier has its
// bytes. Otherwise Held returns nil.
func (r Repo) Held(ctx context.Context, d digest.Digest) *Manifest {
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, r.store.o.Visibility.Under(lease), r, d)
	if err != nil || !visible || link.Kind != meta.KindManifest {
		return nil
	}
	raw, err := r.store.Bytes(ctx, r.Up, d)
	if err != nil {
		return nil
	}
	r.Up.keep(d, int64(len(raw)))
	return &Manifest{Raw: raw, Digest: d, MediaType: link.MediaType, Lease: lease}
}

// Queued returns the manifest of a queued push, or nil. If ref is a tag, accept must allow the
// manifest's media type.
func (r Repo) Queued(ref oci.Reference, accept []string) *Manifest {
	p, ok := r.store.o.Queue.Find(r.Up.Name, r.Name, ref.String())
	if !ok || !ref.ByDigest() && !oci.Accepts(accept, p.MediaType) {
		return nil
	}
	return &Manifest{Raw: p.Manifest, Digest: p.Digest, MediaType: p.MediaType}
}

// Manifest is a manifest whose bytes are here, unchanged.
type Manifest struct {
	Raw       []byte
	Digest    digest.Digest
	MediaType string
	// Lease is the lease on the facts that make the manifest visible to the repository. It is nil if
	// the manifest did not come from the cache.
	Lease *meta.Lease
}

// Parse parses the manifest. The digest of the result is m.Digest.
func (m *Manifest) Parse() (*oci.Manifest, error) {
	man, err := oci.ParseManifest(m.MediaType, m.Raw)
	if err == nil {
		man.Digest = m.Digest
	}
	return man, err
}

// ReadManifest reads a manifest whose digest d is known. The algorithm of d may differ from the
// algorithm that [oci.ReadManifest] uses. A manifest that cannot be read names no children.
func ReadManifest(d digest.Digest, mediaType string, raw []byte) *oci.Manifest {
	man, _ := oci.ReadManifest(mediaType, raw)
	man.Digest = d
	return man
}

// ManifestOf converts a parsed manifest to a Manifest without a lease.
func ManifestOf(man *oci.Manifest) *Manifest {
	return &Manifest{Raw: man.Raw, Digest: man.Digest, MediaType: man.MediaType}
}

// Bytes returns a manifest from the cache, or from the tier of an upstream. The bytes alone do not
// show that a repository has the manifest: a fact has to make the manifest visible, or the upstream
// has to confirm it.
func (s *Store) Bytes(ctx context.Context, up *Upstream, d digest.Digest) ([]byte, error) {
	raw, err := s.o.Cache.Bytes(ctx, d, oci.MaxManifestBytes)
	if err == nil || up.Tier == nil {
		return raw, err
	}
	from := tierManifest{up.Tier, d}
	content, err := s.o.Cache.Open(ctx, cache.Blob{Digest: d, Size: -1, Via: "tier", Observer: from}, from.open)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return readSmall(content)
}

// readSmall reads all bytes. It returns cache.ErrTooLarge if there are more than
// oci.MaxManifestBytes.
func readSmall(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, oci.MaxManifestBytes+1))
	if err == nil && len(raw) > oci.MaxManifestBytes {
		err = cache.ErrTooLarge
	}
	return raw, err
}

// tierManifest fetches a manifest from a tier, and never from the upstream. Several callers share
// the fetch.
type tierManifest struct {
	tier   cache.Tier
	digest digest.Digest
}

// open reads the whole manifest before it returns. So if the tier breaks off or stalls, the fetch
// fails at once, and dray asks the upstream. Otherwise the cache would ask the tier for the rest.
func (m tierManifest) open(ctx context.Context, from int64) (cache.Stream, error) {
	s, err := m.tier.Open(ctx, m.digest, from, 0)
	if err != nil {
		return cache.Stream{}, err
	}
	var raw []byte
	if s.Size > oci.MaxManifestBytes {
		err = cache.ErrTooLarge
	} else {
		raw, err = readSmall(s.Body)
	}
	if err = errors.Join(err, s.Body.Close()); err != nil {
		return cache.Stream{}, err
	}
	return cache.Stream{Body: io.NopCloser(bytes.NewReader(raw)), Size: from + int64(len(raw))}, nil
}

// Joined implements [cache.Observer].
func (m tierManifest) Joined(cache.Observer) {}

// Ended implements [cache.Observer].
func (m tierManifest) Ended(reason error) (again bool) {
	if wrongBytes(reason) {
		m.tier.Wrong(m.digest)
	}
	return false
}
