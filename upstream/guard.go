package upstream

import (
	"context"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

var (
	_ Source = guardedSource{}
	_ Sink   = guardedSink{}
	_ Lister = guardedLister{}

	_ Deleter = guardedDeleter{}
)

// Source returns next as callers see it who have no other answer: refused from the Threshold on.
func (b *Breaker) Source(next Source) Source { return guardedSource{b, b.threshold, next} }

// Held returns next as callers see it who hold an older answer: refused after one failure, until the next probe. It is
// not meant to be wrapped in a Retry.
func (b *Breaker) Held(next Source) Source { return guardedSource{b, 1, impatient{next}} }

// heldPatience is how long a request stands in a queue for whose question there is an older answer.
const heldPatience = time.Second

// impatient asks at once or not at all. Background work has a patience of its own.
type impatient struct{ next Source }

func hurried(ctx context.Context) context.Context {
	if isBackground(ctx) {
		return ctx
	}
	return waiting(ctx, heldPatience)
}

func (i impatient) Manifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	return i.next.Manifest(hurried(ctx), repo, ref, accept)
}

func (i impatient) StatManifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	return i.next.StatManifest(hurried(ctx), repo, ref, accept)
}

func (i impatient) Blob(ctx context.Context, r BlobRequest) (BlobStream, error) {
	return i.next.Blob(hurried(ctx), r)
}

func (i impatient) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	return i.next.StatBlob(hurried(ctx), repo, d)
}

// Sink returns next behind the breaker.
func (b *Breaker) Sink(next Sink) Sink { return guardedSink{b, next} }

// Lister returns next behind the breaker.
func (b *Breaker) Lister(next Lister) Lister { return guardedLister{b, next} }

// Deleter returns next behind the breaker.
func (b *Breaker) Deleter(next Deleter) Deleter { return guardedDeleter{b, next} }

func guarded[T any](b *Breaker, threshold int, blob bool, f func() (T, error)) (v T, err error) {
	err = b.do(threshold, blob, func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}

type guardedSource struct {
	b         *Breaker
	threshold int
	next      Source
}

func (g guardedSource) Manifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	return guarded(g.b, g.threshold, false, func() (*oci.Manifest, error) { return g.next.Manifest(ctx, repo, ref, accept) })
}

func (g guardedSource) StatManifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	return guarded(g.b, g.threshold, false, func() (oci.Descriptor, error) { return g.next.StatManifest(ctx, repo, ref, accept) })
}

func (g guardedSource) Blob(ctx context.Context, r BlobRequest) (BlobStream, error) {
	return guarded(g.b, g.threshold, true, func() (BlobStream, error) { return g.next.Blob(ctx, r) })
}

func (g guardedSource) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	return guarded(g.b, g.threshold, false, func() (int64, error) { return g.next.StatBlob(ctx, repo, d) })
}

type guardedSink struct {
	b    *Breaker
	next Sink
}

func (g guardedSink) PutBlob(ctx context.Context, repo string, b Upload) error {
	return g.b.Do(func() error { return g.next.PutBlob(ctx, repo, b) })
}

func (g guardedSink) PutManifest(ctx context.Context, repo string, ref oci.Reference, m *oci.Manifest) (Pushed, error) {
	return guarded(g.b, g.b.threshold, false, func() (Pushed, error) { return g.next.PutManifest(ctx, repo, ref, m) })
}

func (g guardedSink) Mount(ctx context.Context, repo, from string, d digest.Digest) (bool, error) {
	return guarded(g.b, g.b.threshold, false, func() (bool, error) { return g.next.Mount(ctx, repo, from, d) })
}

type guardedLister struct {
	b    *Breaker
	next Lister
}

func (g guardedLister) Tags(ctx context.Context, repo string, query url.Values) (Page, error) {
	return guarded(g.b, g.b.threshold, false, func() (Page, error) { return g.next.Tags(ctx, repo, query) })
}

func (g guardedLister) Referrers(ctx context.Context, repo string, d digest.Digest, query url.Values) (Page, error) {
	return guarded(g.b, g.b.threshold, false, func() (Page, error) { return g.next.Referrers(ctx, repo, d, query) })
}

type guardedDeleter struct {
	b    *Breaker
	next Deleter
}

func (g guardedDeleter) DeleteManifest(ctx context.Context, repo string, ref oci.Reference) error {
	return g.b.Do(func() error { return g.next.DeleteManifest(ctx, repo, ref) })
}

func (g guardedDeleter) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return g.b.Do(func() error { return g.next.DeleteBlob(ctx, repo, d) })
}
