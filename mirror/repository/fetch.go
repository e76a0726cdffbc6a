package repository

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"

	"dray/cache"
	"dray/cache/fleet"
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
	// asked is the last question to the upstream before answered was set; nil if there was none.
	asked atomic.Pointer[blobQuestion]
	// answered is set when the upstream has begun to return the blob, which confirms that it has the
	// blob.
	answered atomic.Bool
	tier     tierUse
	// share is this mirror's share in the fetch if the mirrors of a fleet fetch the blob together;
	// otherwise nil.
	share *fleet.Share
	// given is set when another member has begun to send the blob to this fetch.
	given atomic.Bool
	// record records the requests to the upstream; nil if the requests are not recorded.
	record *upstream.Asked
	// span is the span of the request that opened the blob. It records nothing unless dray traces
	// requests.
	span trace.Span
}

// Fetch returns the fetch of a blob, and sends no request yet. urgency is the urgency of a
// prefetch. It is nil if a client waits for the blob from the beginning.
func (r Repo) Fetch(d digest.Digest, urgency *upstream.Urgency) *Fetch {
	return &Fetch{repo: r, digest: d, ahead: urgency, tier: tierUse{size: -1}, share: r.store.o.Fleet.Share(d, r.Up.Tier != nil)}
}

// Record makes the fetch record its later requests to the upstream.
func (f *Fetch) Record(in *upstream.Asked) { f.record = in }

// Open opens the blob in the cache. If the cache does not hold the blob, these places are asked in
// turn: another member of the fleet, if one has the blob or fetches it; the tier, if the blob is
// visible to the repository; the upstream. size is in bytes, -1 if it is not known.
func (f *Fetch) Open(ctx context.Context, size int64) (*cache.Reader, error) {
	f.split = f.repo.Up.Split
	f.split.First, f.split.Part = f.first, f.part
	f.tier.size, f.span = size, trace.SpanFromContext(ctx)
	blob := cache.Blob{Digest: f.digest, Size: size, Via: f.repo.Up.Name + " " + f.repo.Name, Split: &f.split, Ahead: f.ahead != nil, Observer: f}
	r, err := f.repo.store.o.Cache.Open(ctx, blob, f.whole)
	if err != nil {
		return nil, f.repo.Up.Broken(err)
	}
	if r.Held() {
		f.keepVisible(ctx, r.Size())
	}
	return r, nil
}

// keepVisible offers the blob, which is held here, to the tier if the blob is visible to the
// repository. A blob that is not visible may be part of a push that the upstream has not accepted.
func (f *Fetch) keepVisible(ctx context.Context, size int64) {
	if f.repo.Up.Tier == nil {
		return
	}
	if _, visible, _ := f.repo.visible(ctx, f.digest); visible {
		f.repo.Up.keep(f.digest, size)
	}
}

// blobQuestion is a question of a fetch to its upstream.
type blobQuestion struct {
	at     time.Time
	absent Absence
}

// Asked reports whether this fetch has asked the upstream.
func (f *Fetch) Asked() bool { return f.asked.Load() != nil }

// RememberAbsent records the absence of the blob if err is a "not found" of the upstream. err is
// the error with which the fetch failed.
func (f *Fetch) RememberAbsent(ctx context.Context, err error) {
	if q := f.asked.Load(); q != nil {
		q.absent.Remember(ctx, q.at, err)
	}
}

// Answered reports whether the upstream has begun to return the blob to this fetch.
func (f *Fetch) Answered() bool { return f.answered.Load() }

// FromMember reports whether another mirror of the fleet has begun to send the blob to this fetch.
func (f *Fetch) FromMember() bool { return f.given.Load() }

// whole is the [cache.Origin] of the fetch.
func (f *Fetch) whole(ctx context.Context, from int64) (cache.Stream, error) {
	ctx = trace.ContextWithSpan(ctx, f.span)
	s, until, err := f.fromOthers(ctx, fleet.Want{From: from})
	if !errors.Is(err, fleet.ErrRegistry) {
		return s, err
	}
	if f.answered.Load() {
		// The upstream has begun to answer, and no fallback can continue this answer. So the fetch
		// uses Upstream.Source. The source that ForPulls returns if there are fallbacks gives up
		// earlier.
		return f.get(ctx, f.repo.Up.Source, from, until)
	}
	return f.get(ctx, f.repo.Up.ForPulls(), from, until)
}

// first is the First of a [cache.Split]. If the registry refuses the range at the beginning of the
// blob, the method requests the whole blob.
func (f *Fetch) first(ctx context.Context, from, to int64) (cache.Stream, error) {
	ctx = trace.ContextWithSpan(ctx, f.span)
	s, until, err := f.fromOthers(ctx, fleet.Want{From: from, To: to, On: true})
	if !errors.Is(err, fleet.ErrRegistry) {
		return s, err
	}
	if f.answered.Load() {
		return f.get(ctx, f.repo.Up.Source, from, until)
	}
	s, err = f.get(ctx, f.repo.Up.ForPulls(), from, until)
	if from == 0 && errors.Is(err, oci.ErrRangeInvalid) {
		s, err = f.get(ctx, f.repo.Up.ForPulls(), 0, 0)
		s.Whole = true
	}
	return s, err
}

// part is the Part of a [cache.Split]. It makes a single attempt, so as not to ask a throttled
// upstream again.
func (f *Fetch) part(ctx context.Context, start, end int64) (cache.Stream, error) {
	ctx = trace.ContextWithSpan(ctx, f.span)
	s, until, err := f.fromOthers(ctx, fleet.Want{From: start, To: end})
	if !errors.Is(err, fleet.ErrRegistry) {
		return s, err
	}
	return f.get(ctx, f.repo.Up.OneTry(), start, until)
}

// fromOthers opens a part of the blob at another mirror of the fleet that has the blob or fetches
// it, or else in the tier. If the caller has to ask the upstream, fromOthers returns
// [fleet.ErrRegistry], and end is the offset up to which the caller asks.
func (f *Fetch) fromOthers(ctx context.Context, w fleet.Want) (s cache.Stream, end int64, err error) {
	w.Most = f.tier.size
	s, end, err = f.fromMember(ctx, w)
	if !errors.Is(err, fleet.ErrRegistry) && !errors.Is(err, fleet.ErrFinished) {
		return s, end, err
	}
	if s, ok := f.fromTier(ctx, w.From, end); ok {
		if end < w.To || w.To == 0 {
			s.End = end
		}
		return s, 0, nil
	}
	if errors.Is(err, fleet.ErrFinished) {
		f.share.NoBucket()
		return f.fromMember(ctx, w)
	}
	return s, end, err
}

// fromMember opens a part of the blob at another mirror of the fleet. The bytes of a member do not
// prove that this repository has the blob. So the blob must be visible to the repository, or the
// upstream must confirm it now. If the upstream refuses, the error is that refusal.
func (f *Fetch) fromMember(ctx context.Context, w fleet.Want) (s cache.Stream, until int64, err error) {
	s, until, err = f.share.Open(ctx, w)
	if err != nil {
		return s, until, err
	}
	_, visible, _ := f.repo.visible(ctx, f.digest)
	if !visible {
		_, err = f.repo.Confirm(ctx, upstream.Call{Asked: f.record}, f.digest)
	}
	if err == nil {
		f.given.Store(true)
		return s, 0, nil
	}
	s.Body.Close() // nobody needs the error of a body that was given up
	if refused := oci.AsError(err); oci.NotFound(err) || refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden {
		return cache.Stream{}, 0, err
	}
	f.share.Unconfirmed()
	return cache.Stream{}, w.To, fleet.ErrRegistry
}

// get opens the bytes [start, end) of the blob. If end is 0, get opens all bytes up to the end of
// the blob.
func (f *Fetch) get(ctx context.Context, source upstream.Source, start, end int64) (cache.Stream, error) {
	if !f.answered.Load() {
		f.asked.Store(&blobQuestion{time.Now(), f.repo.NoBlob(f.digest).Asking(ctx)})
	}
	s, err := source.Blob(ctx, upstream.BlobRequest{Repo: f.repo.Remote().With(upstream.Call{Background: f.ahead, Asked: f.record}), Digest: f.digest, From: start, To: end})
	if err != nil {
		return cache.Stream{}, err
	}
	if !f.answered.Swap(true) {
		f.repo.confirmed(ctx, f.digest, -1) // the size is not verified yet
	}
	if !s.Ranges {
		end = 0
	}
	return cache.Stream{Body: s.Body, Size: s.Size, Whole: !s.Ranges, Skip: s.Skip, End: end}, nil
}

// tierUse is the use of the upstream's [cache.Tier] by one fetch.
type tierUse struct {
	size  int64                 // the size that the blob should have; -1 if it is not known
	asked sync.Once             // guards the decision whether the tier may be asked
	left  atomic.Bool           // this fetch must not ask the tier, or no longer asks it because the tier has failed
	given atomic.Bool           // the tier has begun to return bytes
	other atomic.Pointer[int64] // the size that the tier stated, if it differs from size; otherwise nil
}

// fromTier opens the bytes [start, end) of the blob in the tier. ok is false if the upstream has to
// be asked instead: the tier fails or lacks the blob, or the blob is not visible to the repository.
// In the last case, only the upstream can say whether the repository has the blob. After one
// failure, this fetch does not use the tier again, so that no reader waits for the tier twice.
func (f *Fetch) fromTier(ctx context.Context, start, end int64) (s cache.Stream, ok bool) {
	tier := f.repo.Up.Tier
	if tier == nil {
		return s, false
	}
	f.tier.asked.Do(func() {
		if _, visible, _ := f.repo.visible(ctx, f.digest); !visible {
			f.tier.left.Store(true)
		}
	})
	if f.tier.left.Load() {
		return s, false
	}
	s, err := tier.Open(ctx, f.digest, start, end)
	if err != nil {
		f.tier.left.Store(true)
		return s, false
	}
	if f.tier.size >= 0 && s.Size >= 0 && s.Size != f.tier.size {
		f.tier.left.Store(true)
		f.tier.other.Store(&s.Size) // a manifest may state a wrong size, so the tier may be right
		_ = s.Body.Close()          // nothing was read
		return s, false
	}
	f.tier.given.Store(true)
	s.Body = &tierBody{s.Body, &f.tier.left}
	return s, true
}

// FromTier reports whether the tier has begun to return the blob to this fetch.
func (f *Fetch) FromTier() bool { return f.tier.given.Load() }

// tierBody is the body of an answer of a tier. When it breaks off, the fetch asks the upstream for
// the rest.
type tierBody struct {
	io.ReadCloser
	left *atomic.Bool
}

// Read implements io.Reader.
func (b *tierBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.left.Store(true)
	}
	return n, err
}

// Joined implements [cache.Observer]. In a trace, the span of the other request gets a link to the
// span of the request that fetches.
func (f *Fetch) Joined(other cache.Observer) {
	if o, ok := other.(*Fetch); ok {
		o.span.AddLink(trace.Link{SpanContext: f.span.SpanContext()})
	}
}

// Ended implements [cache.Observer]. If the complete blob is wrong, and some of its bytes came from
// the tier or from other members, Ended returns true, and this fetch does not ask these again.
func (f *Fetch) Ended(reason error) (again bool) {
	again = f.share.Ended(reason)
	return f.tierEnded(reason) || again
}

func (f *Fetch) tierEnded(reason error) (again bool) {
	switch {
	case f.repo.Up.Tier == nil:
		return false
	case reason == nil:
		size, held := f.repo.store.o.Cache.Stat(f.digest)
		if other := f.tier.other.Load(); held && other != nil && *other != size {
			f.repo.Up.Tier.Wrong(f.digest)
		}
		f.repo.Up.keep(f.digest, size)
		return false
	case !f.tier.given.Load() || !wrongBytes(reason):
		return false
	}
	f.tier.left.Store(true)
	f.tier.given.Store(false)
	f.repo.Up.Tier.Wrong(f.digest)
	return true
}

func wrongBytes(err error) bool {
	return errors.Is(err, cache.ErrCorrupt) || errors.Is(err, cache.ErrSize)
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
