package main

import "context"

// The ways of dray to send a file, as its configuration names them.
const (
	bySendfile = "sendfile"
	bySplice   = "splice"
	byCopy     = "copy"
)

// sendWays compares the ways to send a file, so that operators can choose one for their host.
func (b *bench) sendWays(ctx context.Context) error {
	d, ok := b.dray()
	if !ok {
		return nil
	}
	img, err := newImage("bench/send", "v1", b.plan.WarmBlobs, b.plan.WarmBlob)
	if err != nil {
		return err
	}
	var ways []peer
	for _, name := range []string{bySendfile, bySplice, byCopy} {
		w := drayWith(d.path, edited(drayConfig, "name: plain,", "name: plain, send: "+name+","))
		w.name = name
		ways = append(ways, w)
	}
	whole := func(client, n int) (string, string) { return img.blob(img.layers[(client+n)%len(img.layers)]), "" }
	return b.fillAll(ctx, ways, []*image{img}, func(servers map[string]filledServer) error {
		for _, m := range []struct {
			rates, costs metric
			clients      int
		}{{sendFew, sendFewCPU, b.plan.Fewer}, {sendMany, sendManyCPU, b.plan.Streams}} {
			err := eachRound(b.plan.WarmRounds, ways, func(_ int, p peer) error {
				l, err := b.saturate(ctx, servers[p.name].running, m.clients, false, whole)
				b.results.add(m.rates, p.name, l.BytesPerSecond/1e9)
				b.results.add(m.costs, p.name, l.SecondsPerGB)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
