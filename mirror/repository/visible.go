package repository

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/upstream/oci"
)

// octetStream is the media type of a blob of which no manifest says more.
const octetStream = "application/octet-stream"

// anywhere is the repository of facts about an upstream as a whole. No repository has an empty
// name.
const anywhere = ""

// visible reports whether the repository may see a digest without a question, with what a manifest
// says of it. A manifest of the repository must name the digest, and the digest must have come
// through the same upstream: what a manifest names is a claim of whoever pushed it, which that
// upstream has checked against its own content and no other's.
func (r Repo) visible(ctx context.Context, d digest.Digest) (meta.LinkFact, bool, error) {
	key := r.Key(d)
	if s, ok := r.store.seen.Get(key); ok && s.lease.Valid(time.Now()) {
		return s.link, true, nil
	}
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, r.store.o.Visibility.Under(lease), r, d)
	if visible {
		r.store.seen.Add(key, sight{link, lease})
	}
	return link, visible, err
}

// lookUp is visible, from the facts.
func lookUp(ctx context.Context, links *meta.Visibility, r Repo, d digest.Digest) (meta.LinkFact, bool, error) {
	link, err := links.Get(ctx, r.Up.Name, r.Name, d)
	if err != nil {
		return link, false, err
	}
	_, err = links.Get(ctx, r.Up.Name, anywhere, d)
	return link, err == nil, nil
}

// Held returns a manifest that is in the cache and that may be served to the repository, or nil.
func (r Repo) Held(ctx context.Context, d digest.Digest) *Manifest {
	lease := &meta.Lease{}
	link, visible, err := lookUp(ctx, r.store.o.Visibility.Under(lease), r, d)
	if err != nil || !visible || link.Kind != meta.KindManifest {
		return nil
	}
	raw, err := r.store.o.Cache.Bytes(ctx, d, oci.MaxManifestBytes)
	if err != nil {
		return nil
	}
	return &Manifest{Raw: raw, Digest: d, MediaType: link.MediaType, Lease: lease}
}

// Queued returns the manifest of a push that its upstream does not have yet, or nil. A tag means a
// manifest that fits accept.
func (r Repo) Queued(ref oci.Reference, accept []string) *Manifest {
	p, ok := r.store.o.Queue.Find(r.Up.Name, r.Name, ref.String())
	if !ok || !ref.ByDigest() && !oci.Accepts(accept, p.MediaType) {
		return nil
	}
	return &Manifest{Raw: p.Manifest, Digest: p.Digest, MediaType: p.MediaType}
}

// Manifest is a manifest that is here, as it came.
type Manifest struct {
	Raw       []byte
	Digest    digest.Digest
	MediaType string
	// Lease says how long the facts hold that let the repository see the manifest; nil where no
	// facts do.
	Lease *meta.Lease
}

// Parse reads the manifest. It keeps the digest by which the manifest was asked for.
func (m *Manifest) Parse() (*oci.Manifest, error) {
	man, err := oci.ParseManifest(m.MediaType, m.Raw)
	if err == nil {
		man.Digest = m.Digest
	}
	return man, err
}

// ManifestOf returns what is served of a manifest.
func ManifestOf(man *oci.Manifest) *Manifest {
	return &Manifest{Raw: man.Raw, Digest: man.Digest, MediaType: man.MediaType}
}
