package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A pull is how a client fared that fetched an image.
type pull struct {
	Manifest, Layer time.Duration // to the first byte of the manifest, and of the first layer
	Whole           time.Duration
}

// pull fetches an image as clients do: the manifest, then its blobs, a few at a time, the first of
// them on the manifest's connection.
func (l *loader) pull(ctx context.Context, address string, img *image, parallel int) (pull, error) {
	start := time.Now()
	first := l.client(address, false)
	defer first.close()
	a, err := first.get(ctx, img.byTag(), "")
	if err != nil {
		return pull{}, err
	}
	result := pull{Manifest: a.First}
	queue := make(chan int, len(img.layers)+1)
	for i := range img.blobs() {
		queue <- i
	}
	close(queue)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	for i := range parallel {
		c := first
		if i > 0 {
			c = l.client(address, false)
		}
		working.Go(func() {
			defer c.close()
			for i := range queue {
				a, err := c.get(ctx, img.blob(img.blobs()[i]), "")
				if err != nil {
					cancel(err)
					return
				}
				if i == 1 { // the first layer is fetched by one of the workers alone
					result.Layer = a.First
				}
			}
		})
	}
	working.Wait()
	result.Whole = time.Since(start)
	return result, context.Cause(ctx)
}

// pulls has clients pull the same image at the same time; the wall time ends with the last of them.
func (l *loader) pulls(ctx context.Context, address string, img *image, clients, parallel int) ([]pull, time.Duration, error) {
	start := time.Now()
	results := make([]pull, clients)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var pulling sync.WaitGroup
	for i := range clients {
		pulling.Go(func() {
			var err error
			if results[i], err = l.pull(ctx, address, img, parallel); err != nil {
				cancel(err)
			}
		})
	}
	pulling.Wait()
	return results, time.Since(start), context.Cause(ctx)
}

// A load is what a server did for a while, and what that cost it.
type load struct {
	BytesPerSecond, RequestsPerSecond float64
	SecondsPerGB                      float64       // CPU of the server
	PerRequest                        time.Duration // CPU of the server
}

// storm has clients ask as fast as they are answered, until the window is over: what they ask next
// is next's business.
func (b *bench) storm(ctx context.Context, r *running, clients int, secure bool, next func(client, n int) (path, byteRange string)) (load, error) {
	address := r.plain
	if secure {
		address = r.secure
	}
	return b.stormAs(ctx, r, clients, func() *client { return b.loader.client(address, secure) }, next)
}

// stormAs is storm with clients of one's own.
func (b *bench) stormAs(ctx context.Context, r *running, clients int, newClient func() *client, next func(client, n int) (path, byteRange string)) (load, error) {
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	for i := range clients {
		working.Go(func() {
			c := newClient()
			defer c.close()
			for n := 0; asking.Err() == nil; n++ {
				path, byteRange := next(i, n)
				if _, err := c.get(asking, path, byteRange); err != nil {
					cancel(err)
				}
			}
		})
	}
	result, err := b.watch(asking, r)
	cancel(errOver)
	working.Wait()
	if cause := context.Cause(asking); err == nil && !errors.Is(cause, errOver) {
		err = cause
	}
	return result, err
}

// errOver is why clients stop that have done nothing wrong.
var errOver = errors.New("the window is over")

// watch compares counters at the ends of a window, which begins when the clients have warmed up.
func (b *bench) watch(ctx context.Context, r *running) (load, error) {
	if err := pause(ctx, time.Now().Add(b.plan.Window/10)); err != nil {
		return load{}, context.Cause(ctx)
	}
	start, bytes, done := time.Now(), b.loader.bytes.Load(), b.loader.done.Load()
	cpu, err := r.cpu()
	if err != nil {
		return load{}, err
	}
	if err := pause(ctx, start.Add(b.plan.Window)); err != nil {
		return load{}, context.Cause(ctx)
	}
	wall := time.Since(start).Seconds()
	moved, answered := float64(b.loader.bytes.Load()-bytes), float64(b.loader.done.Load()-done)
	after, err := r.cpu()
	if err != nil {
		return load{}, err
	}
	spent := (after - cpu).Seconds()
	return load{moved / wall, answered / wall, spent / (moved / 1e9), time.Duration(spent / max(answered, 1) * 1e9)}, nil
}
