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

// Fetch is how the cache gets a blob of a repository from the upstream. Whoever joins the fetch
// finds on record that this repository has the blob.
type Fetch struct {
	repo   Repo
	digest digest.Digest
	// ahead is set where no client waits for the blob yet.
	ahead *upstream.Urgency
	// asked is when the upstream was asked for this request; nil: never.
	asked atomic.Pointer[time.Time]
	// answered says that it gave the blob: nothing confirms it better.
	answered atomic.Bool
}

// Fetch returns the fetch of a blob. ahead tells when a client waits for it; nil: from the
// beginning.
func (r Repo) Fetch(d digest.Digest, ahead *upstream.Urgency) *Fetch {
	return &Fetch{repo: r, digest: d, ahead: ahead}
}

// Open opens the blob in the cache, which asks the upstream where it does not hold the blob. size
// is in bytes, -1 where it is not known.
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

// Asked returns when the upstream was asked for this request, and whether it was.
func (f *Fetch) Asked() (at time.Time, ok bool) {
	if at := f.asked.Load(); at != nil {
		return *at, true
	}
	return time.Time{}, false
}

// Answered reports whether the upstream gave the blob to this request.
func (f *Fetch) Answered() bool { return f.answered.Load() }

// whole is a [cache.Origin].
func (f *Fetch) whole(ctx context.Context, from int64) (cache.Stream, error) {
	return f.get(ctx, f.repo.Up.Source, from, 0)
}

// part is the Part of a [cache.Split]. Where a registry refuses ranges even of what begins a blob,
// the blob is asked for as a whole. For the parts beside the first one no throttled upstream is
// asked twice.
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

// get opens the bytes from from to to; 0 for to means the end of the blob.
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

// OpenHere opens a blob that can only come from here.
func (r Repo) OpenHere(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	return r.store.o.Cache.Open(ctx, cache.Blob{Digest: d, Size: size}, notHeld)
}

// notHeld is the origin of a blob that can only come from here.
func notHeld(context.Context, int64) (cache.Stream, error) {
	return cache.Stream{}, oci.ErrBlobUnknown.With("the blob is no longer held here, push it again")
}

// Broken makes what the cache found wrong with an upstream's bytes an answer to the client.
func (u *Upstream) Broken(err error) error {
	switch {
	case errors.Is(err, cache.ErrCorrupt), errors.Is(err, cache.ErrSize):
		return u.BadAnswer("something else than was asked for", err)
	case errors.Is(err, cache.ErrStalled):
		return oci.ErrUnavailable.With("%s stopped amid its answer", u.Registry).Because(err)
	}
	return err
}

// BadAnswer is a 502 that says what was wrong with an upstream's answer.
func (u *Upstream) BadAnswer(what string, cause error) error {
	return oci.ErrUnknown.With("%s sent %s", u.Registry, what).WithStatus(http.StatusBadGateway).Because(cause)
}
