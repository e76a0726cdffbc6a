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

// Fetch fetches a blob of a repository from its upstream for the cache. The first answer of the
// upstream records that this repository has the blob, so that every reader of the fetch finds
// it recorded.
type Fetch struct {
	repo   Repo
	digest digest.Digest
	// ahead is set for a prefetch, and raised when a client waits for the blob; nil otherwise.
	ahead *upstream.Urgency
	// asked is the time of the last request to the upstream for this fetch; nil if there was none.
	asked atomic.Pointer[time.Time]
	// answered is set when the upstream has returned the blob. No other confirmation is needed
	// then.
	answered atomic.Bool
}

// Fetch returns the fetch of a blob. ahead is raised when a client waits for the blob; nil if a
// client waits from the beginning.
func (r Repo) Fetch(d digest.Digest, ahead *upstream.Urgency) *Fetch {
	return &Fetch{repo: r, digest: d, ahead: ahead}
}

// Open opens the blob in the cache, which asks the upstream if it does not hold the blob. size
// is in bytes, -1 if it is not known.
func (f *Fetch) Open(ctx context.Context, size int64) (*cache.Reader, error) {
	split := f.repo.Up.Split
	split.Part = f.part
	blob := cache.Blob{Digest: f.digest, Size: size, Via: f.repo.Up.Name + " " + f.repo.Name, Split: &split, Ahead: f.ahead != nil}
	r, err := f.repo.store.o.Cache.Open(ctx, blob, f.whole)
	if err != nil {
		return nil, f.repo.Up.Broken(err)
	}
	return r, nil
}

// Asked returns the time at which this fetch last asked the upstream, and whether it did.
func (f *Fetch) Asked() (at time.Time, ok bool) {
	if at := f.asked.Load(); at != nil {
		return *at, true
	}
	return time.Time{}, false
}

// Answered reports whether the upstream returned the blob to this fetch.
func (f *Fetch) Answered() bool { return f.answered.Load() }

// whole is a [cache.Origin].
func (f *Fetch) whole(ctx context.Context, from int64) (cache.Stream, error) {
	return f.get(ctx, f.repo.Up.Source, from, 0)
}

// part is the Part of a [cache.Split]. If a registry refuses even a range from byte 0, part
// asks for the whole blob. Parts after the first make a single attempt, so that a throttled
// upstream is not asked twice.
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

// get opens the bytes from offset from up to offset to. A zero to means the end of the blob.
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

// Broken converts an error of the cache about bytes of the upstream to the answer for the
// client.
func (u *Upstream) Broken(err error) error {
	switch {
	case errors.Is(err, cache.ErrCorrupt), errors.Is(err, cache.ErrSize):
		return u.BadAnswer("content that does not match its digest or size", err)
	case errors.Is(err, cache.ErrStalled):
		return oci.ErrUnavailable.With("%s stalled during its answer", u.Registry).Because(err)
	}
	return err
}

// BadAnswer is a 502 that says what was wrong with an answer of the upstream.
func (u *Upstream) BadAnswer(what string, cause error) error {
	return oci.ErrUnknown.With("%s sent %s", u.Registry, what).WithStatus(http.StatusBadGateway).Because(cause)
}
