package pull

import (
	"context"
	"net/http"
	"strconv"

	"dray/cache"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

const octetStream = "application/octet-stream"

// Blob handles GET of a blob.
func (p *Puller) Blob(x *request.Request) error {
	x.Divert()
	ctx := x.WithTimeout(repository.LookupTimeout)
	r, d := x.Repo, x.Q.Ref.Digest
	at, err := r.LocateBlob(ctx, d, x.Need())
	if err != nil {
		return err
	}
	f := r.Fetch(d, nil)
	joined := p.prefetchers[r.Up.Name].want(d)
	content, err := f.Open(ctx, at.Size)
	joined()
	if err != nil {
		if asked, ok := f.Asked(); ok {
			r.NoBlob(d).Remember(ctx, asked, err)
		}
		return err
	}
	defer content.Close()
	if x.Source = string(content.Source()); f.Answered() && content.Source() == cache.SourceDisk {
		x.Source = fromOrigin // a small fetched blob may be on disk before Source is called
	}
	if at.Place == repository.Nowhere && !f.Answered() {
		// The bytes were fetched for another repository, so this repository may lack the blob.
		if at, err = r.LocateBlob(ctx, d, x.Need()); err == nil && at.Place == repository.Nowhere {
			_, err = r.Confirm(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	x.StopTimeout()
	return x.Send(d, wire.Content{MediaType: octetStream, Size: content.Size(), Body: content, Arriving: !content.Held()})
}

// HeadBlob handles HEAD of a blob. The answer 200 promises that a push without the bytes of the
// blob will succeed. The blob is staged or queued, a fact says that the upstream has it, or the
// upstream confirms it now. If the upstream does not answer, a held copy that is visible to the
// repository is enough. A listener that takes no pushes answers 200 for every blob that it may
// serve.
func (p *Puller) HeadBlob(x *request.Request) error {
	x.Divert()
	ctx := x.WithTimeout(repository.LookupTimeout)
	r, d := x.Repo, x.Q.Ref.Digest
	at, err := r.LocateBlob(ctx, d, x.HeadNeed())
	if err != nil {
		return err
	}
	size := at.Size
	if at.Place == repository.Nowhere {
		size, err = askBeforePush(ctx, p, x, oci.ErrBlobUnknown, func(ctx context.Context) (int64, error) {
			return r.Confirm(ctx, d)
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
