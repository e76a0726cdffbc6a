package hosted

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// PutBlob implements upstream.Sink. A client's upload is usually in the cache by the time its
// digest is known. PutBlob reads the bytes of u only if the cache lacks them.
func (s *Store) PutBlob(ctx context.Context, at upstream.Repo, u upstream.Upload) error {
	if err := oci.CheckRepo(at.Name); err != nil {
		return err
	}
	if u.Accepted != nil {
		u.Accepted()
	}
	d, err := u.Digest()
	if err != nil {
		return err
	}
	err = s.take(ctx, d)
	if errors.Is(err, oci.ErrBlobUnknown) {
		err = s.ingest(ctx, d, u.Open)
	}
	if err != nil {
		return err
	}
	s.contents.addHeld(at.Name, d)
	s.contents.drop(d)
	return nil
}

// ingest stores bytes that are not in the cache yet, and retains them by [Store.take].
func (s *Store) ingest(ctx context.Context, d digest.Digest, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { _ = r.Close() })()
	up, err := s.cache.Receive(ctx)
	if err != nil {
		return storeError(err)
	}
	defer up.Close()
	src := &source{r: r}
	if _, err := up.ReadFrom(src); err != nil {
		if src.err != nil {
			return src.err
		}
		return storeError(err)
	}
	if _, err := up.Commit(ctx, d); err != nil {
		if errors.Is(err, cache.ErrCorrupt) {
			return oci.ErrDigestInvalid.With("the content does not match the digest %s", d).Because(err)
		}
		return storeError(err)
	}
	return s.take(ctx, d)
}

// source records the error of its reader, so that ingest can distinguish it from an error of the
// cache.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// StatBlob implements upstream.Source. A client that finds a blob here need not push it, so
// StatBlob keeps the blob for Options.Grace.
func (s *Store) StatBlob(_ context.Context, at upstream.Repo, d digest.Digest) (int64, error) {
	if size, ok := s.renew(at.Name, d); ok {
		return size, nil
	}
	return 0, oci.ErrBlobUnknown.With("%s has no blob %s", at.Name, d)
}

// renew reports whether a repository has a blob, returns its size, and keeps it for Options.Grace.
func (s *Store) renew(name string, d digest.Digest) (int64, bool) {
	if !s.contents.renew(name, d) {
		return 0, false
	}
	return s.cache.Stat(d)
}

// Blob implements upstream.Source.
func (s *Store) Blob(ctx context.Context, q upstream.BlobRequest) (upstream.BlobStream, error) {
	if _, err := s.StatBlob(ctx, q.Repo, q.Digest); err != nil {
		return upstream.BlobStream{}, err
	}
	r, err := s.cache.OpenHeld(ctx, q.Digest)
	if err != nil {
		return upstream.BlobStream{}, cacheError(ctx, q.Digest, err)
	}
	if q.From > 0 && q.From >= r.Size() {
		_ = r.Close()
		return upstream.BlobStream{}, oci.ErrRangeInvalid.With("the range is outside of the blob")
	}
	if _, err := r.Seek(q.From, io.SeekStart); err != nil {
		_ = r.Close()
		return upstream.BlobStream{}, cacheError(ctx, q.Digest, err)
	}
	return upstream.BlobStream{Body: r, Size: r.Size(), Ranges: true}, nil
}

// Mount implements upstream.Sink. It copies no bytes, because all repositories share the cache.
func (s *Store) Mount(ctx context.Context, at upstream.Repo, from string, d digest.Digest) (bool, error) {
	if err := oci.CheckRepo(at.Name); err != nil {
		return false, err
	}
	if _, ok := s.renew(from, d); !ok {
		return false, nil
	}
	if err := s.take(ctx, d); err != nil {
		return false, err
	}
	s.contents.addHeld(at.Name, d)
	s.contents.drop(d)
	return true, nil
}

// DeleteBlob implements upstream.Deleter. It refuses to delete a blob that a manifest of the same
// repository needs.
func (s *Store) DeleteBlob(_ context.Context, at upstream.Repo, d digest.Digest) error {
	free, err := s.contents.deleteBlob(at.Name, d)
	releaseAll(free)
	return err
}
