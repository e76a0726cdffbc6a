// Package past records the requests that failed or needed more than the cache, and the last pulls
// of images, so that operators can look them up later.
//
// Of a request that is answered from the cache, the package records only the pull that the request
// is part of. Everything is in memory, bounded, and lost when the process ends.
package past

import (
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream"
)

const (
	// maxMisses bounds the recorded misses, and maxBytes their memory in bytes.
	maxMisses = 4096
	maxBytes  = 8 << 20
	// maxText bounds each text of a miss, and maxError the text of an error, in bytes.
	maxText  = 256
	maxError = 1024
	// overhead is the memory that a miss uses besides its texts, and askedBytes the memory that its
	// requests to the upstream may use, in bytes.
	overhead   = 512
	askedBytes = 8 << 10
	// maxPulls bounds the names of images whose last pull is recorded. Each uses 1 KiB of memory or
	// less.
	maxPulls = 8192
)

// Miss says why a request needs more than the cache. Only the goroutine of the request may use the
// fields other than Asked.
type Miss struct {
	Cause api.MissCause
	// Since is the time of the event that the Cause names.
	Since time.Time
	// Asked records the requests that dray sends to the upstream for the client's request.
	Asked *upstream.Asked
	// Joined says that another request asks the upstream, and this request shares the answer.
	Joined bool
}

// Past records misses and last pulls. Its methods may be called concurrently, also on a nil Past,
// which records nothing.
type Past struct {
	mu     sync.Mutex // guards the fields below
	misses []entry    // in the order of time; the oldest is misses[first]
	first  int
	bytes  int
	since  time.Time // the end of the last deleted miss, or the time of New if no miss was deleted

	pulls *lru.Cache[name, api.LastPull]
}

// entry is a miss with its requests to the upstream, which may go on after the end of the client's
// request.
type entry struct {
	api.Miss
	asked *upstream.Asked
	size  int
}

// name is a tag or a digest of a repository.
type name struct{ upstream, repository, reference string }

// New returns an empty Past.
func New() *Past {
	pulls, _ := lru.New[name, api.LastPull](maxPulls) // fails for sizes below 1 only
	return &Past{since: time.Now(), pulls: pulls}
}

// text shortens s to at most limit bytes. It returns a copy, so that the longer text can be freed.
func text(s string, limit int) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), limit)], ""))
}

// Add records a miss. reason may be nil.
func (p *Past) Add(m api.Miss, reason *Miss) {
	if p == nil {
		return
	}
	e := entry{Miss: m, size: overhead}
	for _, s := range []*string{&e.RequestID, &e.Listener, &e.Client, &e.User, &e.Agent, &e.Method, &e.Kind, &e.Upstream, &e.Repository, &e.InsteadOf, &e.Reference, &e.Source} {
		*s = text(*s, maxText)
		e.size += len(*s)
	}
	e.Digest = digest.Digest(text(e.Digest.String(), maxText))
	e.Error, e.Stale = text(e.Error, maxError), text(e.Stale, maxError)
	e.size += len(e.Digest) + len(e.Error) + len(e.Stale)
	if reason != nil {
		e.Cause, e.Since, e.Joined, e.asked = reason.Cause, reason.Since, reason.Joined, reason.Asked
		e.size += askedBytes
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.misses)-p.first >= maxMisses || p.bytes+e.size > maxBytes {
		p.forget()
	}
	p.misses = append(p.misses, e)
	p.bytes += e.size
}

// forget deletes the oldest miss. The caller holds mu.
func (p *Past) forget() {
	oldest := &p.misses[p.first]
	p.since, p.bytes = oldest.At, p.bytes-oldest.size
	*oldest = entry{}
	if p.first++; p.first >= maxMisses {
		p.misses, p.first = append([]entry(nil), p.misses[p.first:]...), 0
	}
}

// Misses returns the newest misses for which match returns true, at most limit of them, newest
// first.
func (p *Past) Misses(limit int, match func(*api.Miss) bool) api.Misses {
	if p == nil {
		return api.Misses{Items: []api.Miss{}}
	}
	out, found := api.Misses{Items: []api.Miss{}}, []entry{}
	p.mu.Lock()
	out.Since = p.since.UTC()
	for i := len(p.misses) - 1; i >= p.first && len(found) < limit; i-- {
		if match(&p.misses[i].Miss) {
			found = append(found, p.misses[i])
		}
	}
	p.mu.Unlock()
	for _, e := range found {
		out.Items = append(out.Items, e.render())
	}
	return out
}

// render returns the miss with its requests to the upstream.
func (e entry) render() api.Miss {
	m := e.Miss
	m.At, m.Asked = m.At.UTC(), []api.MissRequest{}
	if !m.Since.IsZero() {
		m.Since = m.Since.UTC()
	}
	sent, more := e.asked.Requests()
	m.More = more
	for _, s := range sent {
		m.Asked = append(m.Asked, api.MissRequest{
			At: s.At.UTC(), Method: s.Method, Host: s.Host, Path: s.Path, Status: s.Status, Error: s.Error, Bytes: s.Bytes, Seconds: s.Took.Seconds(),
		})
	}
	return m
}

// Pulled records a pull that has ended.
func (p *Past) Pulled(l api.LivePull) {
	if p == nil {
		return
	}
	at := LastPull(l)
	for _, reference := range []string{l.Reference, l.Digest} {
		if reference != "" {
			p.pulls.Add(name{l.Upstream, l.Repository, reference}, at)
		}
	}
}

// LastPull converts a pull to an api.LastPull.
func LastPull(l api.LivePull) api.LastPull {
	return api.LastPull{
		At: l.Last, Active: l.State == api.LiveActive, Client: l.Client, User: l.User, Agent: l.Agent, Reference: l.Reference, Digest: l.Digest,
		Bytes: l.Bytes, Sources: l.Sources, Failures: l.Failures,
	}
}

// LastPull returns the last ended pull of an image, by its tag or digest. It returns false if none
// is recorded.
func (p *Past) LastPull(upstream, repository, reference string) (api.LastPull, bool) {
	if p == nil {
		return api.LastPull{}, false
	}
	return p.pulls.Peek(name{upstream, repository, reference})
}
