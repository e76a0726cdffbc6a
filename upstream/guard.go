package upstream

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

var (
	_ Source = wrappedSource{}
	_ Sink   = guardedSink{}
	_ Lister = guardedLister{}

	_ Deleter = guardedDeleter{}
)

// wrappedSource is a Source that passes each call of src to the function run. This function may
// repeat the call, and may change its context and its Repo.
type wrappedSource struct {
	src Source
	run func(ctx context.Context, repo Repo, q question) error
}

// question is one call of a Source.
type question func(context.Context, Repo) error

// Manifest implements Source.
func (a wrappedSource) Manifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (m *oci.Manifest, err error) {
	err = a.run(ctx, repo, func(ctx context.Context, repo Repo) (err error) {
		m, err = a.src.Manifest(ctx, repo, ref, accept)
		return err
	})
	return m, err
}

// StatManifest implements Source.
func (a wrappedSource) StatManifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (d oci.Descriptor, err error) {
	err = a.run(ctx, repo, func(ctx context.Context, repo Repo) (err error) {
		d, err = a.src.StatManifest(ctx, repo, ref, accept)
		return err
	})
	return d, err
}

// Blob implements Source.
func (a wrappedSource) Blob(ctx context.Context, r BlobRequest) (s BlobStream, err error) {
	err = a.run(ctx, r.Repo, func(ctx context.Context, repo Repo) (err error) {
		r.Repo = repo
		s, err = a.src.Blob(ctx, r)
		return err
	})
	if err != nil && s.Body != nil { // the answer came too late: see [Breaker.Yielding]
		_ = s.Body.Close()
		s = BlobStream{}
	}
	return s, err
}

// StatBlob implements Source.
func (a wrappedSource) StatBlob(ctx context.Context, repo Repo, d digest.Digest) (size int64, err error) {
	err = a.run(ctx, repo, func(ctx context.Context, repo Repo) (err error) {
		size, err = a.src.StatBlob(ctx, repo, d)
		return err
	})
	return size, err
}

// Source returns src behind the breaker, for callers without an older answer. The breaker refuses
// such callers while it considers the host of their question to be down, or while their repository
// and at least two others fail.
func (b *Breaker) Source(src Source) Source {
	return wrappedSource{src, func(ctx context.Context, repo Repo, ask question) error {
		return b.do(ctx, repo, false, func(repo Repo) error { return ask(ctx, repo) })
	}}
}

// heldWait bounds how long a request waits in a queue if its caller has an older answer.
const heldWait = time.Second

// Held returns src behind the breaker, for callers with an older answer. The breaker refuses such a
// caller if one question to the same host got no answer, or if one question about the same
// repository failed. When BreakerOptions.Probe has passed since then, it lets one question through.
// Requests of these callers wait in a queue for at most heldWait, or for at most backgroundWait if
// they are background work. Do not wrap the result in a Retry.
func (b *Breaker) Held(src Source) Source {
	return wrappedSource{src, func(ctx context.Context, repo Repo, ask question) error {
		return b.do(ctx, repo, true, func(repo Repo) error {
			if !repo.inBackground() {
				repo.maxWait = heldWait
			}
			return ask(ctx, repo)
		})
	}}
}

const (
	// yieldingWait bounds how long a request waits in a queue if its caller can ask another registry.
	yieldingWait = 3 * time.Second
	// yieldAfter bounds the whole time that a caller of Yielding waits for the answer of the registry.
	// Clients wait for 30 s, most of which is then left for the other registry.
	yieldAfter = 8 * time.Second
)

// Yielding returns src behind the breaker, for callers that can ask another registry. The breaker
// refuses them in the same cases as callers with an older answer (see [Breaker.Held]). Their
// requests wait in a queue for at most yieldingWait. A question that has no answer after yieldAfter
// ends with ErrUnreachable. These two bounds do not apply to background work. Do not wrap the
// result in a Retry.
func (b *Breaker) Yielding(src Source) Source {
	return wrappedSource{src, func(ctx context.Context, repo Repo, ask question) error {
		return b.do(ctx, repo, true, func(repo Repo) error {
			if repo.inBackground() {
				return ask(ctx, repo)
			}
			repo.maxWait = yieldingWait
			asked, cancel := context.WithCancel(ctx) // no defer cancel(): the body of a blob is read after the call
			late := time.AfterFunc(yieldAfter, cancel)
			err := ask(asked, repo)
			inTime := late.Stop()
			if inTime && err == nil {
				return nil
			}
			cancel()
			if inTime || ctx.Err() != nil {
				return cmp.Or(err, ctx.Err())
			}
			e := oci.ErrUnavailable.With("the upstream registry %s did not answer within %v", b.o.Name, yieldAfter)
			return e.Because(fmt.Errorf("%w: %w", ErrUnreachable, context.DeadlineExceeded))
		})
	}}
}

// Sink returns sink behind the breaker.
func (b *Breaker) Sink(sink Sink) Sink { return guardedSink{b, sink} }

// Lister returns lister behind the breaker.
func (b *Breaker) Lister(lister Lister) Lister { return guardedLister{b, lister} }

// Deleter returns deleter behind the breaker.
func (b *Breaker) Deleter(deleter Deleter) Deleter { return guardedDeleter{b, deleter} }

func guarded[T any](ctx context.Context, b *Breaker, repo Repo, f func(Repo) (T, error)) (v T, err error) {
	err = b.do(ctx, repo, false, func(repo Repo) (err error) {
		v, err = f(repo)
		return err
	})
	return v, err
}

type guardedSink struct {
	b    *Breaker
	next Sink
}

func (g guardedSink) PutBlob(ctx context.Context, repo Repo, b Upload) error {
	return g.b.do(ctx, repo, false, func(repo Repo) error { return g.next.PutBlob(ctx, repo, b) })
}

func (g guardedSink) PutManifest(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (Pushed, error) {
	return guarded(ctx, g.b, repo, func(repo Repo) (Pushed, error) { return g.next.PutManifest(ctx, repo, ref, m) })
}

func (g guardedSink) Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (bool, error) {
	return guarded(ctx, g.b, repo, func(repo Repo) (bool, error) { return g.next.Mount(ctx, repo, from, d) })
}

type guardedLister struct {
	b    *Breaker
	next Lister
}

func (g guardedLister) Tags(ctx context.Context, repo Repo, query url.Values) (Page, error) {
	return guarded(ctx, g.b, repo, func(repo Repo) (Page, error) { return g.next.Tags(ctx, repo, query) })
}

func (g guardedLister) Referrers(ctx context.Context, repo Repo, d digest.Digest, query url.Values) (Page, error) {
	return guarded(ctx, g.b, repo, func(repo Repo) (Page, error) { return g.next.Referrers(ctx, repo, d, query) })
}

type guardedDeleter struct {
	b    *Breaker
	next Deleter
}

func (g guardedDeleter) DeleteManifest(ctx context.Context, repo Repo, ref oci.Reference) error {
	return g.b.do(ctx, repo, false, func(repo Repo) error { return g.next.DeleteManifest(ctx, repo, ref) })
}

func (g guardedDeleter) DeleteBlob(ctx context.Context, repo Repo, d digest.Digest) error {
	return g.b.do(ctx, repo, false, func(repo Repo) error { return g.next.DeleteBlob(ctx, repo, d) })
}
