package main

import (
	"context"
	"fmt"
)

// filledServer is a server whose cache is filled once, and which is measured many times.
type filledServer struct {
	*running
	origin *origin // nil for the server bareNetHTTP, which has no origin
}

// fill starts all caches, pulls the images once through each cache, and calls f while the caches
// run.
func (b *bench) fill(ctx context.Context, images []*image, f func(map[string]filledServer) error) error {
	return b.fillAll(ctx, b.caches(), images, f)
}

func (b *bench) fillAll(ctx context.Context, peers []peer, images []*image, f func(map[string]filledServer) error) error {
	servers := map[string]filledServer{}
	for _, p := range peers {
		o, err := openOrigin(shape{}, images...)
		if err != nil {
			return err
		}
		defer o.close()
		r, err := b.start(ctx, p, o)
		if err != nil {
			return err
		}
		defer r.stop()
		for _, img := range images {
			if _, err := b.loader.pull(ctx, r.plain, img, b.plan.Pulls); err != nil {
				return fmt.Errorf("fill %s: %w", p.name, err)
			}
		}
		servers[p.name] = filledServer{r, o}
	}
	return f(servers)
}

// warm measures cached blobs: whole over HTTP, whole over TLS, and in ranges.
func (b *bench) warm(ctx context.Context) error {
	img, err := newImage("bench/warm", "v1", b.plan.WarmBlobs, b.plan.WarmBlob)
	if err != nil {
		return err
	}
	whole := func(client, n int) (string, string) { return img.blob(img.layers[(client+n)%len(img.layers)]), "" }
	part := func(client, n int) (string, string) {
		path, _ := whole(client, n/8)
		from := int64(n*7%int(b.plan.WarmBlob/b.plan.Range)) * b.plan.Range
		return path, fmt.Sprintf("bytes=%d-%d", from, from+b.plan.Range-1)
	}
	return b.fill(ctx, []*image{img}, func(servers map[string]filledServer) error {
		measure := func(rates, costs metric, clients int, secure bool, next func(int, int) (string, string)) error {
			return eachRound(b.plan.WarmRounds, b.caches(), func(_ int, p peer) error {
				l, err := b.saturate(ctx, servers[p.name].running, clients, secure, next)
				b.results.add(rates, p.name, l.BytesPerSecond/1e9)
				b.results.add(costs, p.name, l.SecondsPerGB)
				return err
			})
		}
		if err := measure(warmFew, warmFewCPU, b.plan.Fewer, false, whole); err != nil {
			return err
		}
		if err := measure(warmMany, warmManyCPU, b.plan.Streams, false, whole); err != nil {
			return err
		}
		for name, s := range servers {
			peak, err := s.peak()
			if err != nil {
				return err
			}
			b.results.add(warmPeak, name, float64(peak)/1e6)
		}
		if err := measure(warmRanges, warmRangesCPU, b.plan.Fewer, false, part); err != nil {
			return err
		}
		return measure(warmTLS, warmTLSCPU, b.plan.Fewer, true, whole)
	})
}

// manifests measures many small answers, by digest and by tag. For the answers by tag, it also
// counts the resulting requests to the origin. It measures the bare server, too, which shows the
// limit of any program that uses net/http.
func (b *bench) manifests(ctx context.Context) error {
	images, err := b.tagged("bench/manifests")
	if err != nil {
		return err
	}
	byDigest := func(client, n int) (string, string) { return images[(client*31+n)%len(images)].byDigest(), "" }
	byTag := func(client, n int) (string, string) { return images[(client*31+n)%len(images)].byTag(), "" }
	return b.fill(ctx, images, func(servers map[string]filledServer) error {
		peers := b.caches()
		if d, ok := servers[dray]; ok {
			bare, err := b.startBare(ctx, d.plain)
			if err != nil {
				return err
			}
			defer bare.stop()
			servers[bareNetHTTP] = filledServer{running: bare}
			peers = append(peers, peer{name: bareNetHTTP})
		}
		// The function fill has pulled the manifests only by tag. A cache whose keys are paths (nginx)
		// also needs a pull by digest.
		for _, s := range servers {
			c := b.loader.client(s.plain, false)
			for _, img := range images {
				if _, err := c.get(ctx, img.byDigest(), ""); err != nil {
					return err
				}
			}
			c.close()
		}
		measure := func(rates, costs metric, next func(int, int) (string, string)) error {
			return eachRound(b.plan.WarmRounds, peers, func(_ int, p peer) error {
				s := servers[p.name]
				var before counts
				if s.origin != nil {
					before = s.origin.counts()
				}
				answered := b.loader.done.Load()
				l, err := b.saturate(ctx, s.running, b.plan.ManifestClients, false, next)
				b.results.add(rates, p.name, l.RequestsPerSecond)
				b.results.add(costs, p.name, float64(l.PerRequest.Nanoseconds())/1e3)
				if rates == manifestsByTag && s.origin != nil {
					b.results.add(manifestQuestions, p.name, float64(s.origin.counts().since(before).Requests)/float64(b.loader.done.Load()-answered))
				}
				return err
			})
		}
		if err := measure(manifestsByDigest, manifestsByDigestCPU, byDigest); err != nil {
			return err
		}
		return measure(manifestsByTag, manifestsByTagCPU, byTag)
	})
}

// tagged makes small images of a repository, one for each of the plan's tags.
func (b *bench) tagged(repo string) (images []*image, err error) {
	for i := range b.plan.Tags {
		img, err := newImage(repo, fmt.Sprintf("v%d", i), 1, 1<<10)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}
