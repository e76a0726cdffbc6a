package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/wire"
	"dray/upstream"
	"dray/upstream/oci"
)

const octetStream = "application/octet-stream"

// Blob handles GET of a blob.
func (p *Puller) Blob(x *request.Request) error {
	x.Divert()
	x.PullsBlob()
	ctx := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(ctx, x, func() error { return p.blob(ctx, x) })
}

func (p *Puller) blob(ctx context.Context, x *request.Request) error {
	r, d := x.Repo, x.Q.Ref.Digest
	how := upstream.Call{Asked: asked(x)}
	at, err := r.LocateBlobBy(ctx, how, d, x.Need())
	if err != nil {
		x.Miss = p.missedBlob(how.Asked, at, d, "")
		return err
	}
	f := r.Fetch(d, nil)
	f.Record(how.Asked)
	ahead, joined := p.prefetcher(r.Up.Name).want(d)
	content, err := f.Open(ctx, at.Size)
	joined()
	if err != nil {
		x.Miss = p.missedBlob(how.Asked, at, d, "")
		f.RememberAbsent(ctx, err)
		return err
	}
	defer content.Close()
	if x.Source = string(content.Source()); f.Answered() && content.Source() == cache.SourceDisk {
		x.Source = fromOrigin // the bytes came from the origin, although a small blob may be on disk by now
	}
	switch {
	case f.Answered():
	case ahead && !content.Held():
		x.Ahead = true
	case f.FromMember():
		x.Source = fromMember
	case f.FromTier():
		x.Source = fromBucket
	}
	if !content.Held() || f.Answered() || at.Place == repository.Shared {
		x.Miss = p.missedBlob(how.Asked, at, d, content.Source())
	}
	if err := p.confirmShared(ctx, how, r, d, x.Need(), at, f); err != nil {
		return err
	}
	x.StopTimeout()
	p.lender.Mark(x)
	return x.Send(d, wire.Content{MediaType: octetStream, Size: content.Size(), Body: content, Arriving: !content.Held()})
}

// ErrNotKept is wrapped by the errors for content that the cache did not store, or has removed
// since.
var ErrNotKept = errors.New("the cache did not keep all of the image")

// maxBrought bounds the number of blobs that all calls of Bring together fetch at a time.
const maxBrought = 8

// Bring brings a blob into the cache before a client asks for it, and makes it visible to the
// repository. Its requests to the upstream yield to the requests of clients, until a client asks
// for the blob. When a part of the blob arrives, Bring passes its length to the function report.
// cached reports whether the cache had the blob already. The error wraps [ErrNotKept] if the cache
// does not store the blob.
func (p *Puller) Bring(ctx context.Context, r repository.Repo, b oci.Child, report func(n int)) (cached bool, err error) {
	select {
	case p.brought <- struct{}{}:
		defer func() { <-p.brought }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	ahead := p.prefetcher(r.Up.Name)
	urgency := ahead.begin(b.Digest)
	defer ahead.end(b.Digest)
	at, err := r.LocateBlobBy(ctx, upstream.Call{Background: urgency}, b.Digest, repository.Serve)
	if err != nil {
		return false, err
	}
	if _, here := p.o.Cache.Stat(b.Digest); here && at.Place != repository.Nowhere {
		return true, nil
	}
	f := r.Fetch(b.Digest, urgency)
	content, err := f.Open(ctx, b.Size)
	if err != nil {
		f.RememberAbsent(ctx, err)
		return false, err
	}
	defer content.Close()
	if _, err = io.Copy(stored{content, report}, content); err != nil {
		return false, r.Up.Broken(err)
	}
	return false, p.confirmShared(ctx, upstream.Call{}, r, b.Digest, repository.Serve, at, f)
}

// stored is a writer that reports how many bytes of content arrive. It fails as soon as the cache
// passes the bytes through without storing them.
type stored struct {
	content *cache.Reader
	arrived func(n int)
}

// Write implements io.Writer.
func (s stored) Write(p []byte) (int, error) {
	if s.content.Source() == cache.SourceDirect {
		return 0, fmt.Errorf("%w: it passed a blob through uncached; the log says why", ErrNotKept)
	}
	s.arrived(len(p))
	return len(p), nil
}

// confirmShared checks that the repository has a blob, if the bytes of the blob came from
// elsewhere, such as from a fetch for another repository. The bytes came from elsewhere if at.Place
// is Nowhere and the upstream has not answered the fetch f. confirmShared first looks for a place
// again. It asks the upstream only if it finds none.
func (p *Puller) confirmShared(ctx context.Context, how upstream.Call, r repository.Repo, d digest.Digest, need repository.Need, at repository.Location, f *repository.Fetch) error {
	if at.Place != repository.Nowhere || f.Answered() {
		return nil
	}
	at, err := r.LocateBlobBy(ctx, how, d, need)
	if err == nil && at.Place == repository.Nowhere {
		_, err = r.Confirm(ctx, how, d)
	}
	return err
}

// HeadBlob handles HEAD of a blob. The answer 200 promises that a push without the bytes of the
// blob will succeed. So dray answers 200 if the blob is staged or queued, if a fact says that the
// upstream has the blob or is getting it from another mirror, or if the upstream confirms the blob
// now. If dray acknowledges pushes locally, the only fact that counts is that the upstream has the
// blob, and it counts only together with a held copy. If the upstream does not answer, a held copy
// that is visible to the repository is enough, because dray can forward it. A listener that accepts
// no pushes answers 200 for every blob that it may serve.
func (p *Puller) HeadBlob(x *request.Request) error {
	x.Divert()
	ctx := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(ctx, x, func() error { return p.headBlob(ctx, x) })
}

func (p *Puller) headBlob(ctx context.Context, x *request.Request) error {
	r, d := x.Repo, x.Q.Ref.Digest
	at, err := r.LocateBlob(ctx, d, x.HeadNeed())
	if err != nil {
		return err
	}
	size := at.Size
	if at.Place == repository.Nowhere {
		x.Miss = p.missedBlob(asked(x), at, d, "")
		size, err = askBeforePush(ctx, p, x, oci.ErrBlobUnknown, func(ctx context.Context) (int64, error) {
			return r.Confirm(ctx, upstream.Call{Asked: x.Miss.Asked}, d)
		}, func(cause error) (int64, bool) {
			at, err := r.LocateBlob(ctx, d, repository.ServeHere)
			if err != nil || at.Place != repository.Held {
				return 0, false
			}
			x.Stale = cause
			return at.Size, true
		})
		if err != nil {
			return err
		}
	}
	p.warn(x)
	x.Describe(d, size)
	h := x.W.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", request.ETag(d))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", octetStream)
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	x.W.WriteHeader(http.StatusOK)
	return nil
}
