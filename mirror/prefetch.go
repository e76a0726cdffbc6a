package mirror

import (
	"context"
	"sync"
	"time"

	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// PrefetchPolicy says what of an image is fetched as soon as a client has asked for its
// manifest, before the client asks for it. The fetches are those that the client joins:
// nothing is fetched twice.
type PrefetchPolicy struct {
	// MaxLayer is the size in bytes of the largest blob fetched ahead.
	MaxLayer int64
	// AtOnce bounds the blobs being fetched ahead; 0 fetches none. Together with MaxLayer
	// it bounds the bytes that nobody may want.
	AtOnce int
}

const (
	// seenManifests is how many manifests are remembered as dealt with.
	seenManifests = 4096
	// maxAhead bounds the images being fetched ahead; further ones are left to their clients.
	maxAhead = 64
)

// prefetcher fetches ahead for one upstream.
type prefetcher struct {
	PrefetchPolicy
	places chan struct{} // one for each blob being fetched

	mu     sync.Mutex                          // guards below; leaf lock
	under  map[digest.Digest]*upstream.Urgency // blobs being fetched
	wanted map[digest.Digest]int               // blobs that clients are asking for
	seen   map[digest.Digest]bool
	oldest []digest.Digest // of seen, a ring
	next   int
	images int
}

func newPrefetcher(p PrefetchPolicy) *prefetcher {
	return &prefetcher{PrefetchPolicy: p, places: make(chan struct{}, max(p.AtOnce, 0)), seen: map[digest.Digest]bool{},
		under: map[digest.Digest]*upstream.Urgency{}, wanted: map[digest.Digest]int{}}
}

// first reports whether a manifest was not seen lately and there is room for its image,
// which is then counted until done.
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

// begin says that a blob is being fetched ahead. A client that asks for it raises the
// urgency, also one that does so already.
func (p *prefetcher) begin(d digest.Digest) *upstream.Urgency {
	u := upstream.NewUrgency()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under[d] = u
	if p.wanted[d] > 0 {
		u.Raise()
	}
	return u
}

func (p *prefetcher) end(d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.under, d)
}

// want says that a client asks for a blob, until it calls what is returned.
func (p *prefetcher) want(d digest.Digest) (done func()) {
	if p.AtOnce == 0 {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted[d]++
	if u := p.under[d]; u != nil {
		u.Raise()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.wanted[d]--; p.wanted[d] == 0 {
			delete(p.wanted, d)
		}
	}
}

// anticipate fetches what a client that got a manifest is about to ask for, if it is the
// manifest of an image: who gets an index has not chosen a platform yet.
func (m *Mirror) anticipate(x *exchange, a *answer) {
	p, up, repo := m.ahead[x.up.Name], x.up, x.target.Repo
	if p.AtOnce == 0 || !p.first(a.digest) {
		return
	}
	blobs := m.missing(a, p.MaxLayer)
	started := len(blobs) > 0 && m.tasks.Start(func(ctx context.Context) {
		defer p.done()
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, b := range blobs {
			select {
			case p.places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-p.places }()
				m.prefetch(ctx, up, repo, b)
			})
		}
	})
	if !started {
		p.done()
	}
}

// missing lists the blobs of an image that are not held and not too large.
func (m *Mirror) missing(a *answer, most int64) []oci.Child {
	man, err := oci.ParseManifest(a.mediaType, a.raw)
	if err != nil || man.Index() {
		return nil
	}
	var blobs []oci.Child
	named := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if c.Manifest || c.Foreign() || c.Size > most || named[c.Digest] {
			continue
		}
		named[c.Digest] = true
		if _, held := m.cache.Stat(c.Digest); !held {
			blobs = append(blobs, c)
		}
	}
	return blobs
}

// prefetch starts or joins the fetch of a blob and stays until it has ended. What it
// learns is on record for the client, who then asks nobody a second time.
func (m *Mirror) prefetch(ctx context.Context, up *Upstream, repo string, b oci.Child) {
	if _, held := m.cache.Stat(b.Digest); held || m.absent(ctx, up, absentBlob(up, repo, b.Digest)) != nil {
		return
	}
	o, began := m.origin(up, repo, b.Digest), time.Now()
	o.ahead = m.ahead[up.Name].begin(b.Digest)
	defer m.ahead[up.Name].end(b.Digest)
	r, err := m.cache.Open(ctx, o.blob(b.Size), o.fetch)
	if err == nil {
		err = r.Wait()
		_ = r.Close() // nothing was read
	} else if o.asked.Load() != nil {
		m.rememberAbsent(ctx, up, absentBlob(up, repo, b.Digest), began, err)
	}
	if o.asked.Load() != nil {
		m.metrics.prefetched.WithLabelValues(up.Name).Inc()
	}
	if err != nil && ctx.Err() == nil {
		m.log.Debug("blob not fetched ahead", "upstream", up.Name, "repository", repo, "digest", b.Digest, "error", err)
	}
}
