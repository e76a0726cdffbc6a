package mirror

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/mirror/wire"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

const octetStream = "application/octet-stream"

func (m *Mirror) getBlob(x *exchange) error {
	m.divert(x)
	ctx := x.hurry(lookFor)
	repo, d := x.target.Repo, x.q.Ref.Digest
	size, shown := m.shown(ctx, x, d)
	if !shown {
		if _, held := m.cache.Stat(d); held {
			// The bytes came through another repository: the upstream decides whether this
			// one has them too.
			var err error
			if size, err = m.vouch(ctx, x.up, repo, d); err != nil {
				return err
			}
			shown = true
		} else if err := m.absent(ctx, x.up, absentBlob(x.up, repo, d)); err != nil {
			return err
		}
	}
	o := m.origin(x.up, repo, d)
	joined := m.ahead[x.up.Name].want(d)
	r, err := m.cache.Open(ctx, o.blob(size), o.fetch)
	joined()
	if err != nil {
		if asked := o.asked.Load(); asked != nil {
			m.rememberAbsent(ctx, x.up, absentBlob(x.up, repo, d), *asked, err)
		}
		return brokenOrigin(x.up, err)
	}
	defer r.Close()
	if x.source = string(r.Source()); o.answered.Load() && r.Source() == cache.SourceDisk {
		x.source = fromOrigin // a small blob may be on disk before its fetch is looked at
	}
	if !shown && !o.answered.Load() {
		if _, shown = m.shown(ctx, x, d); !shown {
			// The fetch that was joined, or that has just landed, was another repository's.
			if _, err := m.vouch(ctx, x.up, repo, d); err != nil {
				return err
			}
		}
	}
	x.relax()
	c := wire.Content{MediaType: octetStream, Size: r.Size(), Body: r}
	if file := r.File(); file != nil {
		c.Body = file
	}
	return x.send(d, c)
}

// brokenOrigin makes what the cache found wrong with an upstream's bytes an answer.
func brokenOrigin(up *Upstream, err error) error {
	switch {
	case errors.Is(err, cache.ErrCorrupt), errors.Is(err, cache.ErrSize):
		return badAnswer(up, "something else than was asked for", err)
	case errors.Is(err, cache.ErrStalled):
		return oci.ErrUnavailable.With("%s stopped amid its answer", up.Registry).Because(err)
	}
	return err
}

// origin is where one request would fetch a blob.
type origin struct {
	m      *Mirror
	up     *Upstream
	repo   string
	digest digest.Digest
	// ahead is set where no client waits for the blob yet.
	ahead *upstream.Urgency
	// asked is when the upstream was asked for this request; nil: never.
	asked atomic.Pointer[time.Time]
	// answered says that it gave the blob: nothing vouches better.
	answered atomic.Bool
}

// origin fetches a blob from the upstream for the cache. Whoever joins the fetch finds
// on record that this repository has the blob.
func (m *Mirror) origin(up *Upstream, repo string, d digest.Digest) *origin {
	return &origin{m: m, up: up, repo: repo, digest: d}
}

// blob names the blob to the cache; size may be -1.
func (o *origin) blob(size int64) cache.Blob {
	split := o.up.Split
	split.Part = o.part
	return cache.Blob{Digest: o.digest, Size: size, Via: o.up.Name + " " + o.repo, Split: &split, Ahead: o.ahead != nil}
}

// fetch is a [cache.Origin].
func (o *origin) fetch(ctx context.Context, from int64) (cache.Stream, error) {
	return o.get(ctx, o.up.Source, from, 0)
}

// part is the Part of a [cache.Split]. Where a registry refuses ranges even of what
// begins a blob, the blob is asked for as a whole. For the parts beside the first one no
// throttled upstream is asked twice.
func (o *origin) part(ctx context.Context, from, to int64) (cache.Stream, error) {
	if from > 0 {
		return o.get(ctx, o.up.Once, from, to)
	}
	s, err := o.get(ctx, o.up.Source, 0, to)
	if errors.Is(err, oci.ErrRangeInvalid) {
		s, err = o.get(ctx, o.up.Source, 0, 0)
		s.Whole = true
	}
	return s, err
}

// get opens the bytes from from to to; 0 for to means the end of the blob.
func (o *origin) get(ctx context.Context, source upstream.Source, from, to int64) (cache.Stream, error) {
	now := time.Now()
	o.asked.Store(&now)
	s, err := source.Blob(ctx, upstream.BlobRequest{Repo: o.up.remote(o.repo).With(upstream.Call{Background: o.ahead}), Digest: o.digest, From: from, To: to})
	if err != nil {
		return cache.Stream{}, err
	}
	if !o.answered.Swap(true) {
		o.m.vouched(ctx, o.up, o.repo, o.digest, -1) // the size is not verified yet
	}
	return cache.Stream{Body: s.Body, Size: s.Size, Whole: !s.Ranges, Skip: s.Skip}, nil
}

// vouched records that the upstream has a blob in a repository.
func (m *Mirror) vouched(ctx context.Context, up *Upstream, repo string, d digest.Digest, size int64) {
	link := meta.Link{Digest: d, LinkFact: meta.LinkFact{MediaType: octetStream, Size: size, Kind: meta.KindBlob}}
	m.supplied(ctx, up, link)
	if _, err := m.links.Get(ctx, up.Name, repo, d); err != nil { // what a manifest says of it is more
		m.recorded(m.links.Add(ctx, up.Name, repo, link))
	}
}

// shown reports whether a digest may be served to the repository without asking, and
// its size as far as a manifest tells (-1: not known).
func (m *Mirror) shown(ctx context.Context, x *exchange, d digest.Digest) (size int64, ok bool) {
	link, visible, err := m.visible(ctx, x.up, x.target.Repo, d)
	if err == nil && visible {
		return link.Size, true
	}
	if size, ok := m.queue.Blob(x.up.Name, x.target.Repo, d); ok {
		return size, true
	}
	if x.listener.Policy.Role == identity.RoleRegistry { // a push that is under way brought it
		if p := m.pins.get(pinKey{x.up.Name, x.target.Repo, d}); p != nil {
			return p.size, true
		}
	}
	if err != nil {
		return -1, false
	}
	return link.Size, false
}

// vouch asks the upstream whether the repository has a blob, once for all who ask,
// and links it. A recent "no" is not asked again.
func (m *Mirror) vouch(ctx context.Context, up *Upstream, repo string, d digest.Digest) (int64, error) {
	if err := m.absent(ctx, up, absentBlob(up, repo, d)); err != nil {
		return 0, err
	}
	return m.vouches.Do(ctx, pinKey{up.Name, repo, d}, func(ctx context.Context) (int64, error) {
		asked := time.Now()
		size, err := up.Source.StatBlob(ctx, up.remote(repo), d)
		if err != nil {
			m.rememberAbsent(ctx, up, absentBlob(up, repo, d), asked, err)
			return 0, err
		}
		m.vouched(ctx, up, repo, d, size)
		if up.Sink != nil {
			m.recorded(m.known.Add(ctx, up.Name, repo, meta.Holding{Digest: d, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: size}}))
		}
		return size, nil
	})
}

// absentBlob names the fact that a repository lacks a blob.
func absentBlob(up *Upstream, repo string, d digest.Digest) meta.AbsentKey {
	return meta.AbsentKey{Upstream: up.Name, Repo: repo, Digest: d, Kind: meta.KindBlob}
}

// headBlob never guesses: 200 means that a push which leaves the blob out will
// succeed. It is held for a push under way, or known at the target; else the
// upstream is asked. A mirror without pushes answers from what it may serve.
func (m *Mirror) headBlob(x *exchange) error {
	m.divert(x)
	ctx := x.hurry(lookFor)
	repo, d := x.target.Repo, x.q.Ref.Digest
	size, ok := m.present(ctx, x, d)
	if !ok {
		err := x.orSend(ctx, oci.ErrBlobUnknown, func(ctx context.Context) (err error) {
			size, err = m.vouch(ctx, x.up, repo, d)
			return err
		})
		if err != nil {
			return err
		}
	}
	x.digest, x.size = d, size
	h := x.w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", etag(d))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", octetStream)
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

func (m *Mirror) present(ctx context.Context, x *exchange, d digest.Digest) (int64, bool) {
	if x.up.Sink == nil || x.listener.Policy.Role == identity.RoleMirror {
		size, held := m.cache.Stat(d)
		_, shown := m.shown(ctx, x, d)
		return size, held && shown
	}
	if p := m.pins.get(pinKey{x.up.Name, x.target.Repo, d}); p != nil {
		return p.size, true
	}
	if size, ok := m.queue.Blob(x.up.Name, x.target.Repo, d); ok {
		return size, true
	}
	fact, err := m.known.Get(ctx, x.up.Name, x.target.Repo, d)
	if err != nil || !x.up.AcknowledgeLocally {
		return fact.Size, err == nil
	}
	// A fact is not enough for gatherBlob, which needs the upstream or the bytes.
	_, visible, _ := m.visible(ctx, x.up, x.target.Repo, d)
	_, held := m.cache.Stat(d)
	return fact.Size, visible && held
}
