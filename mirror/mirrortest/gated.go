package mirrortest

import (
	"context"
	"sync"

	"dray/upstream"
)

// Gated is a source whose blobs wait until its gate opens. It counts the requests for blobs.
type Gated struct {
	upstream.Source
	gate chan struct{}

	mu                   sync.Mutex // guards the fields below
	asked, waiting, most int
}

// Gate puts a Gated in front of the registry.
func (f *Fixture) Gate() *Gated {
	g := &Gated{Source: f.Registry, gate: make(chan struct{})}
	f.Upstream.Source = g
	return g
}

// Open opens the gate. It must be called only once.
func (g *Gated) Open() { close(g.gate) }

// Blob implements [upstream.Source]. Blob stops waiting when ctx ends.
func (g *Gated) Blob(ctx context.Context, r upstream.BlobRequest) (upstream.BlobStream, error) {
	g.mu.Lock()
	g.asked++
	g.waiting++
	g.most = max(g.most, g.waiting)
	g.mu.Unlock()
	select {
	case <-g.gate:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
	return g.Source.Blob(ctx, r)
}

// Asked returns how many requests there were.
func (g *Gated) Asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

// Waiting returns how many requests wait now.
func (g *Gated) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// Most returns the largest number of requests that have waited at the same time.
func (g *Gated) Most() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most
}
