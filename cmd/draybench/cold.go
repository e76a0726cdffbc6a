package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// startupPause is the time between a server's start and the first request for which the server has
// to fetch content.
const startupPause = 200 * time.Millisecond

// firstByte requests a manifest and then a layer from a server that has just started. Each request
// uses a new connection, as when a client fetches several layers at once.
func (b *bench) firstByte(ctx context.Context) error {
	return eachRound(b.plan.FirstByteRounds, b.peers, func(round int, p peer) error {
		img, err := newImage("bench/first", fmt.Sprintf("v%d", round), 1, 1e6)
		if err != nil {
			return err
		}
		return b.cold(ctx, p, shape{RTT: b.plan.RTT}, img, func(r *running, _ *origin) error {
			if err := pause(ctx, time.Now().Add(startupPause)); err != nil {
				return err
			}
			for _, ask := range []struct {
				to   metric
				path string
			}{{firstManifest, img.byTag()}, {firstLayer, img.blob(img.layers[0])}} {
				c := b.loader.client(r.plain, false)
				a, err := c.get(ctx, ask.path, "")
				c.close()
				if err != nil {
					return err
				}
				b.results.add(ask.to, p.name, milliseconds(a.First))
			}
			return nil
		})
	})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// pullCold measures one client's pull of an image from an empty cache.
func (b *bench) pullCold(ctx context.Context, s shape, img *image, f func(p peer, got pull, asked counts, cpu time.Duration)) error {
	return eachRound(b.plan.Rounds, b.peers, func(_ int, p peer) error {
		return b.cold(ctx, p, s, img, func(r *running, o *origin) error {
			before, err := r.cpu()
			if err != nil {
				return err
			}
			got, err := b.loader.pull(ctx, r.plain, img, b.plan.Pulls)
			if err != nil {
				return err
			}
			asked := o.counts()
			after, err := r.cpu()
			f(p, got, asked, after-before)
			return err
		})
	})
}

func (b *bench) coldImage(ctx context.Context) error {
	img, err := newImage("bench/cold", "v1", b.plan.Layers, b.plan.Layer)
	if err != nil {
		return err
	}
	return b.pullCold(ctx, shape{RTT: b.plan.RTT, Total: b.plan.Total}, img, func(p peer, got pull, asked counts, _ time.Duration) {
		b.results.add(coldWall, p.name, got.Whole.Seconds())
		b.results.add(coldBytes, p.name, float64(asked.Bytes)/float64(img.size()))
	})
}

func (b *bench) smallLayers(ctx context.Context) error {
	img, err := newImage("bench/small", "v1", b.plan.SmallLayers, b.plan.SmallLayer)
	if err != nil {
		return err
	}
	return b.pullCold(ctx, shape{RTT: b.plan.RTT, Total: b.plan.Total}, img, func(p peer, got pull, asked counts, _ time.Duration) {
		b.results.add(smallWall, p.name, got.Whole.Seconds())
		b.results.add(smallRequests, p.name, float64(asked.Requests))
		b.results.add(smallConnections, p.name, float64(asked.Connections))
	})
}

// coldCPU pulls one large layer from an origin without limits. It reads the server's CPU time a
// moment after the client has everything, so that this time includes the server's remaining work.
func (b *bench) coldCPU(ctx context.Context) error {
	img, err := newImage("bench/whole", "v1", 1, b.plan.Whole)
	if err != nil {
		return err
	}
	b.timeHash(img.layers[0].bytes)
	return eachRound(b.plan.Rounds, b.peers, func(_ int, p peer) error {
		return b.cold(ctx, p, shape{}, img, func(r *running, _ *origin) error {
			before, err := r.cpu()
			if err != nil {
				return err
			}
			got, err := b.loader.pull(ctx, r.plain, img, b.plan.Pulls)
			if err != nil {
				return err
			}
			b.results.add(unshapedWall, p.name, got.Whole.Seconds())
			if p.name == direct {
				return nil
			}
			if err := pause(ctx, time.Now().Add(300*time.Millisecond)); err != nil {
				return err
			}
			after, err := r.cpu()
			b.results.add(unshapedCPU, p.name, (after - before).Seconds())
			return err
		})
	})
}

// slowConnections pulls one large layer from an origin that limits the rate of each connection.
// The servers run concurrently, each with its own origin, because they wait most of the time.
func (b *bench) slowConnections(ctx context.Context) error {
	img, err := newImage("bench/slow", "v1", 1, b.plan.Whole)
	if err != nil {
		return err
	}
	for range b.plan.Rounds {
		errs := make(chan error, len(b.peers))
		var pulling sync.WaitGroup
		var mu sync.Mutex
		for _, p := range b.peers {
			pulling.Go(func() {
				errs <- b.cold(ctx, p, shape{RTT: b.plan.RTT, PerConnection: b.plan.SlowConnection}, img, func(r *running, o *origin) error {
					got, err := b.loader.pull(ctx, r.plain, img, b.plan.Pulls)
					asked := o.counts()
					mu.Lock()
					defer mu.Unlock()
					b.results.add(slowWall, p.name, got.Whole.Seconds())
					b.results.add(slowConnectionCount, p.name, float64(asked.Connections))
					return err
				})
			})
		}
		pulling.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// herd compares a pull by one client with concurrent pulls by many clients, both from an empty
// cache.
func (b *bench) herd(ctx context.Context) error {
	img, err := newImage("bench/herd", "v1", b.plan.HerdLayers, b.plan.HerdLayer)
	if err != nil {
		return err
	}
	return eachRound(b.plan.Rounds, b.caches(), func(round int, p peer) error {
		if p.name == distribution && round >= b.plan.DistributionHerdRounds {
			return nil // distribution fetches once for each client, so its round takes as long as the rounds of all other servers together
		}
		for _, clients := range []int{1, b.plan.Herd} {
			err := b.cold(ctx, p, shape{RTT: b.plan.RTT, Total: b.plan.Total}, img, func(r *running, o *origin) error {
				got, wall, err := b.loader.pulls(ctx, r.plain, img, clients, b.plan.Pulls)
				if err != nil {
					return err
				}
				manifest := medianOf(got, func(p pull) time.Duration { return p.Manifest })
				layer := medianOf(got, func(p pull) time.Duration { return p.Layer })
				if clients == 1 {
					b.results.add(aloneWall, p.name, wall.Seconds())
					b.results.add(aloneManifest, p.name, milliseconds(manifest))
					b.results.add(aloneLayer, p.name, milliseconds(layer))
					return nil
				}
				b.results.add(herdWall, p.name, wall.Seconds())
				b.results.add(herdManifest, p.name, milliseconds(manifest))
				b.results.add(herdLayer, p.name, milliseconds(layer))
				b.results.add(herdBytes, p.name, float64(o.counts().Bytes)/float64(img.size()))
				b.results.add(herdRequests, p.name, float64(o.counts().Requests))
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// crowd measures the memory of dray and nginx while a thousand clients pull an image from an empty
// cache. It leaves out distribution, which would fetch the image a thousand times.
func (b *bench) crowd(ctx context.Context) error {
	img, err := newImage("bench/crowd", "v1", b.plan.CrowdLayers, b.plan.CrowdLayer)
	if err != nil {
		return err
	}
	peers := slices.DeleteFunc(b.caches(), func(p peer) bool { return p.name == distribution })
	return eachRound(1, peers, func(_ int, p peer) error {
		return b.cold(ctx, p, shape{RTT: b.plan.RTT, Total: b.plan.Total}, img, func(r *running, o *origin) error {
			if _, _, err := b.loader.pulls(ctx, r.plain, img, b.plan.Crowd, 1); err != nil {
				return err
			}
			peak, err := r.peak()
			b.results.add(crowdPeak, p.name, float64(peak)/1e6)
			b.results.add(crowdBytes, p.name, float64(o.counts().Bytes)/float64(img.size()))
			return err
		})
	})
}

func medianOf(pulls []pull, of func(pull) time.Duration) time.Duration {
	var all []time.Duration
	for _, p := range pulls {
		all = append(all, of(p))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
