package repository

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/upstream"
	"dray/upstream/oci"
)

// Fetch fetches a blob of a repository from its upstream for the cache. When the upstream first
// answers with content, Fetch records that the repository has the blob, before any reader gets
// bytes.
type Fetch struct {
	repo   Repo
	digest digest.Digest
	split  cache.Split
	// ahead is the urgency of a prefetch, which is raised when a client waits for the blob. It is nil
	// if the fetch is not a prefetch.
	ahead *upstream.Urgency
	// asked is when this fetch last sent a request to the upstream; nil if it has sent none.
	asked atomic.Pointer[time.Time]
	// answered is set when the upstream has begun to return the blob, which confirms that it has the
	// blob.
	answered atomic.Bool
}

// Fetch returns the fetch of a blob, and sends no request yet. ahead is the urgency of a prefetch.
// It is nil if a client waits for the blob from the beginning.
func (r Repo) Fetch(d digest.Digest, ahead *upstream.Urgency) *Fetch {
	return &Fetch{repo: r, digest: d, ahead: ahead}
}

// Open opens the blob in the cache. If the cache does not hold the blob, the upstream is asked.
// size is in bytes, -1 if it is not known.
func (f *Fetch) Open(ctx context.Context, size int64) (*cache.Reader, error) {
	f.split = f.repo.Up.Split
	f.split.Part = f.part
	blob := cache.Blob{Digest: f.digest, Size: size, Via: f.repo.Up.Name + " " + f.repo.Name, Split: &f.split, Ahead: f.ahead != nil}
	r, err := f.repo.store.o.Cache.Open(ctx, blob, f.whole)
	if err != nil {
		return nil, f.repo.Up.Broken(err)
	}
	return r, nil
}

// Asked returns when this fetch last asked the upstream. ok is false if it has not asked.
func (f *Fetch) Asked() (at time.Time, ok bool) {
	if at := f.asked.Load(); at != nil {
		return *at, true
	}
	return time.Time{}, false
}

// Answered reports whether the upstream has begun to return the blob to this fetch.
func (f *Fetch) Answered() bool { return f.answered.Load() }

// whole is the [cache.Origin] of the fetch.
func (f *Fetch) whole(ctx context.Context, from int64) (cache.Stream, error) {
	return f.get(ctx, f.repo.Up.Source, from, 0)
}

// part is the Part of a [cache.Split]. If the registry refuses the range of the first part, part
// asks for the whole blob. For later parts it makes a single attempt, so as not to ask a throttled
// upstream again.
func (f *Fetch) part(ctx context.Context, from, to int64) (cache.Stream, error) {
	if from > 0 {
		return f.get(ctx, f.repo.Up.OneTry(), from, to)
	}
	s, err := f.get(ctx, f.repo.Up.Source, 0, to)
	if errors.Is(err, oci.ErrRangeInvalid) {
		s, err = f.get(ctx, f.repo.Up.Source, 0, 0)
		s.Whole = true
	}
	return s, err
}

// get opens the bytes [from, to) of the blob. If to is 0, the bytes reach to the end of the blob.
func (f *Fetch) get(ctx context.Context, source upstream.Source, from, to int64) (cache.Stream, error) {
	now := time.Now()
	f.asked.Store(&now)
	s, err := source.Blob(ctx, upstream.BlobRequest{Repo: f.repo.Remote().With(upstream.Call{Background: f.ahead}), Digest: f.digest, From: from, To: to})
	if err != nil {
		return cache.Stream{}, err
	}
	if !f.answered.Swap(true) {
		f.repo.confirmed(ctx, f.digest, -1) // the size is not verified yet
	}
	return cache.Stream{Body: s.Body, Size: s.Size, Whole: !s.Ranges, Skip: s.Skip}, nil
}

// OpenHere opens a blob that is held here. It never asks the upstream.
func (r Repo) OpenHere(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	return r.store.o.Cache.Open(ctx, cache.Blob{Digest: d, Size: size}, notHeld)
}

// notHeld is the [cache.Origin] of a blob that must be held here. It always fails.
func notHeld(context.Context, int64) (cache.Stream, error) {
	return cache.Stream{}, oci.ErrBlobUnknown.With("the mirror no longer has the blob; push it again")
}

// Broken converts an error of the cache about the upstream's bytes to the error for the client.
// Other errors stay as they are.
func (u *Upstream) Broken(err error) error {
	switch {
	case errors.Is(err, cache.ErrCorrupt), errors.Is(err, cache.ErrSize):
		return u.BadAnswer("content that does not match its digest or size", err)
	case errors.Is(err, cache.ErrStalled):
		return oci.ErrUnavailable.With("%s stalled during its answer", u.Registry).Because(err)
	}
	return err
}

// BadAnswer returns a 502 that says what the upstream sent instead of a valid answer.
func (u *Upstream) BadAnswer(what string, cause error) error {
	return oci.ErrUnknown.With("%s sent %s", u.Registry, what).WithStatus(http.StatusBadGateway).Because(cause)
}
