package push

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream"
)

// sender brings blobs to their upstream. It sends a blob while a client uploads it, sends the local
// copy, or asks the upstream to mount the blob.
type sender struct {
	o      Options
	mounts *mounts
	// mounted counts attempts to mount, by upstream and result.
	mounted *prometheus.CounterVec
}

// start begins to scan a session's bytes. It also begins to send them, unless the gate holds them
// back. The client may give the size or the digest beforehand. size is -1 if it gave no size, and
// announced is "" if it gave no digest. sentTo, if not nil, counts the bytes that are sent.
func (s *sender) start(u *session, size int64, announced digest.Digest, sentTo *atomic.Int64) {
	f := newForward()
	f.sentTo = sentTo
	blob, r := u.blob, u.repo
	u.forward = f
	g := s.o.Checks.For(r)
	layer := pipeline.Layer{Upstream: r.Up.Name, Repository: r.Name, Digest: announced}
	f.scan = s.o.Checks.Follow(g, layer, func() io.ReadCloser { return blob.Follow() }, f.identity)
	if g != nil && (g.HoldUploads || g.Pipeline.Scans() && f.scan == nil) {
		// dray sends none of the bytes before the verdict. If no scan could start, the checks read
		// the blob when its manifest has arrived.
		f.end(gate.ErrHeldBack)
		return
	}
	cancel, started := s.o.Tasks.StartCancellable(func(ctx context.Context) {
		f.end(s.stream(ctx, u, g, size, announced))
	})
	f.cancel = cancel
	if !started {
		f.end(flight.ErrStopped)
	}
}

// stream sends a session's bytes to the upstream as they arrive. If awaitsMount returns true,
// stream first waits for all bytes, and then tries to mount the blob.
func (s *sender) stream(ctx context.Context, u *session, g *gate.Gate, size int64, announced digest.Digest) error {
	f, blob, r := u.forward, u.blob, u.repo
	how := upstream.Call{OnRetry: f.failures.observe, Existing: g != nil}
	if s.awaitsMount(ctx, r, announced, size) {
		d, err := f.cleared(ctx, g, r)
		if err != nil {
			return err
		}
		if s.tryMount(ctx, how, r, d) {
			return nil
		}
	}
	return r.Send(ctx, how, upstream.Upload{
		Open: f.counted(func() (io.ReadCloser, error) { return blob.Follow(), nil }),
		Size: size, Announced: announced,
		Digest: func() (digest.Digest, error) { return f.cleared(ctx, g, r) },
	}, func() (digest.Digest, int64) { return f.digest, blob.Size() })
}

func (s *sender) sendHeld(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, size int64) error {
	f := newForward()
	if b := r.Staged(d); b != nil {
		f = forwardOf(b)
	}
	return r.Send(ctx, how, upstream.Upload{
		Open: f.counted(func() (io.ReadCloser, error) { return r.OpenHere(ctx, d, size) }),
		Size: size, Announced: d,
		Digest: func() (digest.Digest, error) { return d, nil },
	}, func() (digest.Digest, int64) { return d, size })
}

// upload brings a blob to the upstream without the client: by a mount, or from the local copy. The
// caller must have checked that the repository may have the blob.
func (s *sender) upload(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, size int64) error {
	if s.tryMount(ctx, how, r, d) {
		return nil
	}
	return s.sendHeld(ctx, how, r, d, size)
}

// wait waits until the upstream has the staged blob, and returns nil. If the forward of the blob
// has failed, wait tries once more by calling upload.
func (s *sender) wait(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, b *repository.Staged) error {
	f := forwardOf(b)
	if how.OnRetry != nil {
		f.failures.listen(how.OnRetry)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.err == nil {
		return nil
	}
	if r.PresentAtTarget(ctx, d) {
		return nil // the upstream has got the blob in another way
	}
	// Try again even after a refusal, because the registry may accept the blob by now.
	return s.upload(ctx, how, r, d, b.Size)
}

// mountSource is [repository.Repo.MountSource], but returns false if the upstream refused a mount
// from that source less than mountPause ago.
func (s *sender) mountSource(ctx context.Context, r repository.Repo, d digest.Digest) (repository.Repo, bool) {
	from, ok := r.MountSource(ctx, d)
	return from, ok && !s.mounts.paused(pair{from, r})
}

// mountFrom asks the upstream to mount a blob, and reports whether the upstream has mounted it. It
// returns an error if the attempt failed. A refusal of the upstream is no error. The caller must
// have checked that the repository may have the blob.
func (s *sender) mountFrom(ctx context.Context, how upstream.Call, r, from repository.Repo, d digest.Digest) (bool, error) {
	ok, err := r.Up.Sink.Mount(ctx, r.Remote().With(how), from.Remote().Name, d)
	result := mountRefused
	switch {
	case err != nil:
		s.o.Logger.Debug("mount failed", "upstream", r.Up.Name, "repository", r.Name, "from", from.Name, "error", err)
		result = mountFailed
	case ok:
		result = mountDone
	}
	s.mounts.note(pair{from, r}, result)
	s.mounted.WithLabelValues(r.Up.Name, string(result)).Inc()
	if result == mountDone {
		r.RecordMounted(ctx, d)
	}
	return result == mountDone, err
}

// tryMount tries to mount a blob if a source is known, and reports whether that succeeded. The
// caller must have checked that the repository may have the blob.
func (s *sender) tryMount(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest) bool {
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	from, ok := s.mountSource(ctx, r, d)
	if !ok {
		return false
	}
	mounted, _ := s.mountFrom(ctx, how, r, from, d)
	return mounted
}

// awaitsMount reports whether dray tries to mount a blob before it sends any byte to the upstream.
// If so, the blob waits until the client has sent all bytes, because only all bytes prove that the
// client has the blob. A blob waits only if its digest is announced and mountSource finds a source.
// A blob of more than mountFirstBytes or of unknown size waits only if, in addition, the newest
// successful mount at the upstream is less than mountPause ago. A blob that does not wait is
// forwarded while the client sends it.
func (s *sender) awaitsMount(ctx context.Context, r repository.Repo, d digest.Digest, size int64) bool {
	if d == "" || !s.mounts.reliable(r.Up) && (size < 0 || size > mountFirstBytes) {
		return false
	}
	_, ok := s.mountSource(ctx, r, d)
	return ok
}
