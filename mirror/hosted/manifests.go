package hosted

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Manifest implements upstream.Source.
func (s *Store) Manifest(ctx context.Context, at upstream.Repo, ref oci.Reference, _ []string) (*oci.Manifest, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	desc, err := s.contents.find(at.Name, ref)
	if err != nil {
		return nil, err
	}
	raw, err := s.cache.Bytes(ctx, desc.Digest, oci.MaxManifestBytes)
	if err != nil {
		return nil, missing(ctx, at.Name, ref, desc.Digest, err)
	}
	m, err := oci.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return nil, err
	}
	m.Digest = desc.Digest
	return m, nil
}

// StatManifest implements upstream.Source.
func (s *Store) StatManifest(ctx context.Context, at upstream.Repo, ref oci.Reference, _ []string) (oci.Descriptor, error) {
	desc, err := s.contents.find(at.Name, ref)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if _, ok := s.cache.Stat(desc.Digest); !ok {
		return oci.Descriptor{}, missing(ctx, at.Name, ref, desc.Digest, cache.ErrNotFound)
	}
	return desc, nil
}

// [missing] returns the error for a manifest whose bytes cannot be read. The error says that the
// manifest is unknown only if the cache does not have the bytes.
func missing(ctx context.Context, name string, ref oci.Reference, d digest.Digest, err error) error {
	err = cacheError(ctx, d, err)
	if oci.NotFound(err) {
		return unknown(name, ref).Because(err)
	}
	return err
}

// PutManifest implements upstream.Sink. It returns when the manifest, all content that it names and
// the repository's file are on stable storage.
func (s *Store) PutManifest(ctx context.Context, at upstream.Repo, ref oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	if err := oci.CheckRepo(at.Name); err != nil {
		return upstream.Pushed{}, err
	}
	entry := &manifest{mediaType: m.MediaType, size: int64(len(m.Raw)), refs: refsOf(m, func(d digest.Digest) bool {
		_, here := s.renew(at.Name, d)
		return here
	})}
	if err := s.complete(at.Name, entry); err != nil {
		return upstream.Pushed{}, err
	}
	if err := s.cache.Put(ctx, cache.Blob{Digest: m.Digest, Size: entry.size}, m.Raw); err != nil {
		return upstream.Pushed{}, cacheError(ctx, m.Digest, err)
	}
	err := s.take(ctx, m.Digest)
	if errors.Is(err, oci.ErrBlobUnknown) { // the disk has failed, and Put has returned nil nevertheless
		return upstream.Pushed{}, storeError(err)
	}
	if err != nil {
		return upstream.Pushed{}, err
	}
	defer s.contents.drop(m.Digest)
	err = s.change(ctx, at.Name, func(next *state) error {
		now := time.Now()
		entry.pushed = now
		next.manifests[m.Digest] = entry
		if ref.Tag != "" {
			next.tags[ref.Tag] = tag{Digest: m.Digest, Pushed: now}
		}
		// Content that the manifest needs may have been removed before the repository was locked.
		return s.complete(at.Name, entry)
	})
	if err != nil {
		return upstream.Pushed{}, err
	}
	return upstream.Pushed{Digest: m.Digest, Subject: entry.subject}, nil
}

// complete returns an error if the repository lacks content that a manifest names. It also keeps
// the manifest's blobs for Options.Grace. The subject may be missing (spec 1.1, "Pushing Manifests
// with Subject"). Foreign layers that were not pushed may be missing, too: refsOf has left them
// out.
func (s *Store) complete(name string, m *manifest) error {
	for _, b := range m.blobs {
		if _, ok := s.renew(name, b.Digest); !ok {
			return oci.NotPushed(oci.KindBlob, b.Digest, name).Because(upstream.ErrPartsMissing)
		}
	}
	if d := s.contents.lacks(name, m.manifests); d != "" {
		return oci.NotPushed(oci.KindManifest, d, name).Because(upstream.ErrPartsMissing)
	}
	return nil
}

// DeleteManifest implements upstream.Deleter. If ref is a tag, DeleteManifest deletes only the tag.
// If no other tag leads to the manifest, Options.Untagged says how long the manifest stays after
// its last use.
func (s *Store) DeleteManifest(ctx context.Context, at upstream.Repo, ref oci.Reference) error {
	if s.contents.lookup(at.Name) == nil {
		return nameUnknown(at.Name)
	}
	return s.change(ctx, at.Name, func(next *state) error {
		if ref.Tag != "" {
			if next.tags[ref.Tag].Digest == "" {
				return unknown(at.Name, ref)
			}
			delete(next.tags, ref.Tag)
			return nil
		}
		if next.manifests[ref.Digest] == nil {
			return unknown(at.Name, ref)
		}
		next.remove(ref.Digest)
		return nil
	})
}
