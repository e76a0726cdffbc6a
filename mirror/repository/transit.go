package repository

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

// Announce tells other mirrors on the same store of facts that this mirror has a staged blob. It
// does so until the blob has been forwarded or is no longer staged. If there are no other mirrors,
// it does nothing.
func (r Repo) Announce(ctx context.Context, d digest.Digest, b *Staged) {
	s := r.store
	if s.o.Transit == nil {
		return
	}
	announce := func(ctx context.Context, held bool) {
		s.Recorded(s.o.Transit.Set(ctx, r.Up.Name, r.Name, d, meta.TransitFact{Size: b.Size, Held: held}))
	}
	announce(ctx, forwardEnded(b.Forward))
	s.o.Tasks.Start(func(ctx context.Context) {
		defer func() { s.Recorded(s.o.Transit.Forget(context.WithoutCancel(ctx), r.Up.Name, r.Name, d)) }()
		done := b.Forward.Done()
		for {
			select {
			case <-done:
				if b.Forward.Err() == nil {
					return
				}
				done = nil // the forward has failed, so this mirror holds the blob back from now on
			case <-time.After(meta.TransitTTL / 3):
			case <-ctx.Done():
				return
			}
			if r.Staged(d) != b {
				return
			}
			announce(ctx, done == nil)
		}
	})
}

func forwardEnded(f Forward) bool {
	select {
	case <-f.Done():
		return true
	default:
		return false
	}
}

// inTransit returns the fact that another mirror has received a blob. It returns an error if there
// is no such fact, or if [Options.OneWriter] says to ignore such facts.
func (r Repo) inTransit(ctx context.Context, d digest.Digest) (meta.TransitFact, error) {
	if r.store.o.Transit == nil || r.store.o.OneWriter {
		return meta.TransitFact{}, meta.ErrNotFound
	}
	return r.store.o.Transit.Get(ctx, r.Up.Name, r.Name, d)
}

// elsewhere looks for a blob that another mirror has received from a client. While that mirror
// sends the blob to the upstream, elsewhere waits. After that, it asks the upstream. If the
// upstream lacks the blob and the other mirror holds it back, elsewhere returns an error after
// which clients try again. The next request of such a client may reach the other mirror.
func elsewhere(ctx context.Context, how upstream.Call, r Repo, d digest.Digest) (at Location, ok bool, err error) {
	f, unknown := r.inTransit(ctx, d)
	if unknown != nil {
		return at, false, nil
	}
	for pause := 50 * time.Millisecond; unknown == nil && !f.Held; pause = min(2*pause, time.Second) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return at, false, context.Cause(ctx)
		}
		f, unknown = r.inTransit(ctx, d)
	}
	at, ok, err = blobAt(ctx, how, r, d, Confirmed)
	if !ok && err == nil && unknown == nil {
		err = oci.ErrUnavailable.With("another mirror has %s of %s and does not send it yet; push again, and without a fleet, let all requests of a client reach the same mirror", d, r.Name)
	}
	return at, ok, err
}

// Opened tells other mirrors on the same store of facts that this mirror has opened an upload.
// expiry is how long the other mirrors remember the upload.
func (s *Store) Opened(ctx context.Context, id string, expiry time.Duration) {
	if s.o.Transit != nil {
		s.Recorded(s.o.Transit.Opened(ctx, id, expiry))
	}
}

// OpenElsewhere reports whether another mirror on the same store of facts has opened an upload.
func (s *Store) OpenElsewhere(ctx context.Context, id string) bool {
	return s.o.Transit != nil && s.o.Transit.OpenElsewhere(ctx, id)
}
