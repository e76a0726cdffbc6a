package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pull has the times of a client that pulls an image.
type pull struct {
	// Manifest is the time from the request for the manifest to the first byte of the answer's body.
	// It includes the time to connect, if the client is not connected yet. Layer is the same for the
	// first layer.
	Manifest, Layer time.Duration
	Whole           time.Duration
}

// pull fetches an image as clients do: first the manifest, then its blobs. The parameter workers
// bounds the blobs that pull fetches at a time. The connection that fetched the manifest also
// fetches blobs.
func (l *loader) pull(ctx context.Context, address string, img *image, workers int) (pull, error) {
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
	for i := range workers {
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
				if i == 1 { // the first layer; only one worker gets it
					result.Layer = a.First
				}
			}
		})
	}
	working.Wait()
	result.Whole = time.Since(start)
	return result, context.Cause(ctx)
}

// pulls makes several clients pull an image at once. It returns the time until the last of them is
// done.
func (l *loader) pulls(ctx context.Context, address string, img *image, clients, workers int) ([]pull, time.Duration, error) {
	start := time.Now()
	results := make([]pull, clients)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var pulling sync.WaitGroup
	for i := range clients {
		pulling.Go(func() {
			var err error
			if results[i], err = l.pull(ctx, address, img, workers); err != nil {
				cancel(err)
			}
		})
	}
	pulling.Wait()
	return results, time.Since(start), context.Cause(ctx)
}

// load has the rates of a server during a window, and their cost.
type load struct {
	BytesPerSecond, RequestsPerSecond float64
	SecondsPerGB                      float64       // CPU time of the server for each GB
	PerRequest                        time.Duration // CPU time of the server for each request
}

// saturate makes clients send their next request as soon as they have an answer, until the window
// is over. requestAt returns request number n of a client.
func (b *bench) saturate(ctx context.Context, r *running, clients int, secure bool, requestAt func(client, n int) (path, byteRange string)) (load, error) {
	address := r.plain
	if secure {
		address = r.secure
	}
	return b.saturateWith(ctx, r, clients, func() *client { return b.loader.client(address, secure) }, requestAt)
}

// saturateWith does what saturate does, but with clients that newClient makes.
func (b *bench) saturateWith(ctx context.Context, r *running, clients int, newClient func() *client, requestAt func(client, n int) (path, byteRange string)) (load, error) {
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	for i := range clients {
		working.Go(func() {
			c := newClient()
			defer c.close()
			for n := 0; asking.Err() == nil; n++ {
				path, byteRange := requestAt(i, n)
				if _, err := c.get(asking, path, byteRange); err != nil {
					cancel(err)
				}
			}
		})
	}
	result, err := b.measureWindow(asking, r)
	cancel(errOver)
	working.Wait()
	if cause := context.Cause(asking); err == nil && !errors.Is(cause, errOver) {
		err = cause
	}
	return result, err
}

// errOver is the cause with which clients stop at the end of the window.
var errOver = errors.New("the window is over")

// measureWindow returns the load of a server during a window. It first lets the clients warm up.
func (b *bench) measureWindow(ctx context.Context, r *running) (load, error) {
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
