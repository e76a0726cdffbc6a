package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// rangeLoad is a number of clients that fetch ranges of one length, each over one connection.
type rangeLoad struct {
	clients int
	length  int64
}

// rangeLoads are the loads of clients that fetch a layer in parallel ranges, and of clients that
// fetch single files of a layer as they need them.
func rangeLoads() []rangeLoad { return []rangeLoad{{20, 8e6}, {10, 16e6}, {20, 1e6}} }

// String returns the text for the load in the rows of a table.
func (l rangeLoad) String() string {
	return fmt.Sprintf("%d at a time, of %d MB", l.clients, l.length/1e6)
}

func (l rangeLoad) warmRate() metric { return metric(l.String() + ", GB/s") }
func (l rangeLoad) warmCost() metric { return metric(l.String() + ", CPU s/GB") }

// lines are the network paths to the origin over which coldRanges measures. Both limit the total
// rate, and the first also limits the rate of each connection.
func (p plan) lines() []shape {
	return []shape{{RTT: p.RTT, PerConnection: p.SlowConnection, Total: 2 * p.Total}, {RTT: p.RTT, Total: p.Total}}
}

func coldRow(l rangeLoad, s shape) string {
	origin := fmt.Sprintf("%d MB/s", s.Total/1e6)
	if s.PerConnection > 0 {
		origin += fmt.Sprintf(", %d MB/s a connection", s.PerConnection/1e6)
	}
	return origin + ": " + l.String()
}

func coldRangesWall(l rangeLoad, s shape) metric { return metric(coldRow(l, s) + ", s") }
func coldRangesBytes(l rangeLoad, s shape) metric {
	return metric(coldRow(l, s) + ", bytes from the origin / bytes of the layer")
}

// rangeRows returns two rows for each load.
func rangeRows(one, two func(rangeLoad) metric) (rows []metric) {
	for _, l := range rangeLoads() {
		rows = append(rows, one(l), two(l))
	}
	return rows
}

func coldRangeRows() (rows []metric) {
	for _, s := range fullPlan().lines() {
		rows = append(rows, rangeRows(func(l rangeLoad) metric { return coldRangesWall(l, s) }, func(l rangeLoad) metric { return coldRangesBytes(l, s) })...)
	}
	return rows
}

// rangeTargets returns the targets for ranges. For a layer in the cache, they compare dray with
// nginx. For a layer that is not in the cache, they compare dray's time with the time of clients
// that fetch from the origin directly. They also bound the bytes that dray fetches.
func rangeTargets() (all []target) {
	for _, l := range rangeLoads() {
		least := 1.0
		if l.length < 8e6 {
			least = 0.9
		}
		all = append(all,
			target{text: fmt.Sprintf("ranges of a warm blob, %s, against nginx", l), metric: l.warmRate(), to: l.warmRate(), server: nginx, atLeast: true, bound: least},
			target{text: fmt.Sprintf("CPU of that, %s, against nginx", l), metric: l.warmCost(), to: l.warmCost(), server: nginx, bound: 1.1})
	}
	for _, s := range fullPlan().lines() {
		for _, l := range rangeLoads() {
			all = append(all,
				target{text: "ranges of a cold layer, " + coldRow(l, s) + ", against direct", metric: coldRangesWall(l, s), to: coldRangesWall(l, s), server: direct, bound: 1.05},
				target{text: "bytes of that, " + coldRow(l, s), metric: coldRangesBytes(l, s), bound: 1.0005})
		}
	}
	return all
}

// warmRanges measures ranges of blobs that dray and nginx have in their caches. It leaves out the
// server distribution: only the scenario warm measures its ranges.
func (b *bench) warmRanges(ctx context.Context) error {
	img, err := newImage("bench/ranges", "v1", b.plan.WarmBlobs, b.plan.WarmBlob)
	if err != nil {
		return err
	}
	peers := b.only(dray, nginx)
	return b.fillAll(ctx, peers, []*image{img}, func(servers map[string]filledServer) error {
		for _, l := range rangeLoads() {
			length := min(l.length, b.plan.WarmBlob)
			part := func(client, n int) (string, string) {
				from := int64(n*7%int(b.plan.WarmBlob/length)) * length
				return img.blob(img.layers[(client+n/8)%len(img.layers)]), byteRange(from, length)
			}
			err := eachRound(b.plan.WarmRounds, peers, func(_ int, p peer) error {
				got, err := b.saturate(ctx, servers[p.name].running, l.clients, false, part)
				b.results.add(l.warmRate(), p.name, got.BytesPerSecond/1e9)
				b.results.add(l.warmCost(), p.name, got.SecondsPerGB)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func byteRange(from, length int64) string { return fmt.Sprintf("bytes=%d-%d", from, from+length-1) }

// coldRanges lets clients fetch all ranges of a layer in a random order, from an empty cache. It
// leaves out nginx and distribution: whatever range a client asks for, they fetch the layer from
// its first byte on.
func (b *bench) coldRanges(ctx context.Context) error {
	img, err := newImage("bench/coldranges", "v1", 1, b.plan.RangedLayer)
	if err != nil {
		return err
	}
	peers := b.only(direct, dray)
	for i, s := range b.plan.lines() {
		named := fullPlan().lines()[i] // a quick run names its rows after the full plan, too
		for _, l := range rangeLoads() {
			err := eachRound(b.plan.RangedRounds, peers, func(_ int, p peer) error {
				return b.cold(ctx, p, s, img, func(r *running, o *origin) error {
					took, err := b.loader.ranges(ctx, r.plain, img.blob(img.layers[0]), b.plan.RangedLayer, l)
					b.results.add(coldRangesWall(l, named), p.name, took.Seconds())
					b.results.add(coldRangesBytes(l, named), p.name, float64(o.counts().Bytes)/float64(b.plan.RangedLayer))
					return err
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// ranges fetches each range of a blob once, in a random order that is always the same. It returns
// the time until the last range has arrived.
func (l *loader) ranges(ctx context.Context, address, path string, size int64, load rangeLoad) (time.Duration, error) {
	order := rand.New(rand.NewPCG(1, uint64(load.length))).Perm(int((size + load.length - 1) / load.length))
	queue := make(chan int64, len(order))
	for _, i := range order {
		queue <- int64(i) * load.length
	}
	close(queue)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var working sync.WaitGroup
	for range load.clients {
		working.Go(func() {
			c := l.client(address, false)
			defer c.close()
			for from := range queue {
				if _, err := c.get(ctx, path, byteRange(from, min(load.length, size-from))); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	working.Wait()
	return time.Since(start), context.Cause(ctx)
}
