package pull

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"

	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// Prefetch sets which blobs of an image dray fetches before the client asks for them. The fetches
// start when the client has asked for the manifest. A client that asks for a blob during its fetch
// joins the fetch, so that nothing is fetched twice.
type Prefetch struct {
	// MaxLayer is the size in bytes of the largest blob that is prefetched.
	MaxLayer int64
	// AtOnce bounds the blobs of an upstream that are prefetched at a time. 0 or less means that no
	// blob is prefetched.
	AtOnce int
}

const (
	// seenManifests bounds the manifests in prefetcher.seen.
	seenManifests = 4096
	// maxAhead bounds the images of an upstream that are prefetched at a time. While dray prefetches
	// this many, it fetches the blobs of a further image only when clients ask for them.
	maxAhead = 64
	// maxBlobsAhead bounds the blobs of an image that are prefetched. Real images have fewer layers. A
	// manifest with thousands was probably made to cause many requests.
	maxBlobsAhead = 128
)

type prefetcher struct {
	Prefetch
	slots chan struct{} // one for each blob being fetched

	mu     sync.Mutex // guards the fields below
	blobs  map[digest.Digest]*early
	seen   map[digest.Digest]bool
	oldest []digest.Digest // ring buffer of the keys of seen
	next   int
	images int
}

// early is a blob that is being prefetched, that clients are asking for, or both. All prefetches of
// a blob have the same urgency, because they share one fetch in the cache.
type early struct {
	fetches, clients int
	urgency          *upstream.Urgency // nil until the first prefetch
}

func newPrefetcher(p Prefetch) *prefetcher {
	p.AtOnce = max(p.AtOnce, 0)
	return &prefetcher{Prefetch: p, slots: make(chan struct{}, p.AtOnce), seen: map[digest.Digest]bool{}, blobs: map[digest.Digest]*early{}}
}

// first reports whether to prefetch an image. It returns true if the manifest was not seen lately
// and fewer than maxAhead images are being prefetched. If first returns true, the caller must call
// the method done later.
func (p *prefetcher) first(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[d] || p.images >= maxAhead {
		return false
	}
	p.seen[d] = true
	if len(p.oldest) < seenManifests {
		p.oldest = append(p.oldest, d)
	} else {
		delete(p.seen, p.oldest[p.next])
		p.oldest[p.next] = d
		p.next = (p.next + 1) % seenManifests
	}
	p.images++
	return true
}

func (p *prefetcher) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images--
}

// begin records that a blob is being prefetched, until the method end is called. It returns the
// urgency of the prefetch, which is already raised if a client is asking for the blob now. If not,
// the method want raises it when a client asks.
func (p *prefetcher) begin(d digest.Digest) *upstream.Urgency {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change(d, 1, 0).urgency
}

func (p *prefetcher) end(d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(d, -1, 0)
}

// want records that a client is asking for a blob, until release is called. The result
// prefetched says whether a prefetch of the blob is under way.
func (p *prefetcher) want(d digest.Digest) (prefetched bool, release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change(d, 0, 1).fetches > 0, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.change(d, 0, -1)
	}
}

// change adds to the counts of a blob, and raises its urgency if a client asks. It needs mu.
func (p *prefetcher) change(d digest.Digest, fetches, clients int) *early {
	b := p.blobs[d]
	if b == nil {
		b = &early{}
		p.blobs[d] = b
	}
	b.fetches += fetches
	b.clients += clients
	if b.fetches > 0 {
		if b.urgency == nil {
			b.urgency = upstream.NewUrgency()
		}
		if b.clients > 0 {
			b.urgency.Raise()
		}
	}
	if b.fetches == 0 && b.clients == 0 {
		delete(p.blobs, d)
	}
	return b
}

// prefetchImage starts to prefetch the blobs of a manifest that a client got. An index is not
// prefetched, because the client has not chosen a platform yet. In a trace, the requests to the
// upstream belong to span, which is the span of the client's request for the manifest.
func (p *Puller) prefetchImage(span trace.Span, r repository.Repo, m *repository.Manifest) {
	ahead := p.prefetcher(r.Up.Name)
	if ahead.AtOnce == 0 || !ahead.first(m.Digest) {
		return
	}
	blobs := p.missing(m, ahead.MaxLayer)
	started := len(blobs) > 0 && p.o.Tasks.Start(func(ctx context.Context) {
		defer ahead.done()
		ctx = trace.ContextWithSpan(ctx, span)
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, b := range blobs {
			select {
			case ahead.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-ahead.slots }()
				p.prefetch(ctx, ahead, r, b)
			})
		}
	})
	if !started {
		ahead.done()
	}
}

// missing lists the blobs of an image that are not held and have at most maxSize bytes. It looks
// only at the first maxBlobsAhead blobs that are not too large.
func (p *Puller) missing(m *repository.Manifest, maxSize int64) []oci.Child {
	man, err := m.Parse()
	if err != nil || man.Index() {
		return nil
	}
	var blobs []oci.Child
	named := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if c.Manifest || c.Foreign() || c.Size > maxSize || named[c.Digest] {
			continue
		}
		named[c.Digest] = true
		if _, held := p.o.Cache.Stat(c.Digest); !held {
			blobs = append(blobs, c)
		}
		if len(named) == maxBlobsAhead {
			break
		}
	}
	return blobs
}

// prefetch starts or joins the fetch of a blob and waits until it has ended. It records the answer
// "not found", so that the client's request does not ask the upstream again.
func (p *Puller) prefetch(ctx context.Context, ahead *prefetcher, r repository.Repo, b oci.Child) {
	if _, held := p.o.Cache.Stat(b.Digest); held || r.NoBlob(b.Digest).Err(ctx) != nil {
		return
	}
	urgency := ahead.begin(b.Digest)
	defer ahead.end(b.Digest)
	// The fetch asks the tier only for a visible blob. If the tier has the blob, LocateBlobBy asks the
	// upstream to confirm that the repository has it, and so makes the blob visible.
	if r.Up.Tier != nil {
		if _, err := r.LocateBlobBy(ctx, upstream.Call{Background: urgency}, b.Digest, repository.Serve); err != nil {
			return
		}
	}
	f := r.Fetch(b.Digest, urgency)
	content, err := f.Open(ctx, b.Size)
	if err == nil {
		err = content.Wait()
		_ = content.Close() // nothing was read
	} else {
		f.RememberAbsent(ctx, err)
	}
	if f.Asked() {
		p.prefetched.WithLabelValues(r.Up.Name).Inc()
	}
	if err != nil && ctx.Err() == nil {
		p.o.Logger.Debug("blob not prefetched", "upstream", r.Up.Name, "repository", r.Name, "digest", b.Digest, "error", err)
	}
}
