package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// reasons returns, by the metric of a target, functions that explain why the target was missed.
// They use other measurements of the run, and return "" if one of these is missing.
func reasons() map[metric]func(r results) string {
	return map[metric]func(r results) string{
		manifestsByDigest: func(r results) string { return besideBare(r, manifestsByDigest, manifestsByDigestCPU) },
		manifestsByTag:    func(r results) string { return besideBare(r, manifestsByTag, manifestsByTagCPU) },
		besideCPU: func(r results) string {
			bare, ok := r.median(besideCPU, bareNetHTTP)
			more, ok2 := r.difference(besideCPU, dray, bareNetHTTP)
			if !ok || !ok2 {
				return ""
			}
			return fmt.Sprintf("The goal is for a machine on which net/http takes %d µs for a request. Here net/http takes %s µs, and dray adds %s × as much for rights, counters and a log line. On the machine of the goal, dray would add %s µs.",
				bareMicroseconds, number(bare, true), number(more/bare, true), number(more/bare*bareMicroseconds, true))
		},
		firstManifest: func(r results) string {
			late, ok := r.difference(firstManifest, dray, direct)
			other, ok2 := r.difference(firstManifest, nginx, direct)
			if !ok || !ok2 {
				return ""
			}
			return fmt.Sprintf("%s ms more than direct. Every server in between adds some: nginx, which sends bytes on as they arrive, adds %s ms. dray verifies and stores the whole manifest before it sends the first byte.",
				number(late, true), number(other, true))
		},
		herdWall: func(r results) string {
			one, ok1 := r.median(aloneWall, dray)
			all, ok2 := r.median(herdWall, dray)
			if !ok1 || !ok2 {
				return ""
			}
			return fmt.Sprintf("The clients, the origin and dray share the cores. %s s instead of %s s deliver every byte to every client, and the origin becomes slower, too.", number(all, true), number(one, true))
		},
		unshapedCPU: func(r results) string {
			alone, ok := r.median(hashAlone, dray)
			other, ok2 := r.median(unshapedCPU, nginx)
			if !ok || !ok2 {
				return ""
			}
			own, _ := r.median(unshapedCPU, dray)
			return fmt.Sprintf("SHA-256 alone takes %s s of one core here, and nginx, which verifies nothing, takes %s s in total. dray needs %s × the sum of both.",
				number(alone, true), number(other, true), number(own/(alone+other), true))
		},
	}
}

// besideBare explains a missed target for a rate. It compares the rates of bareNetHTTP and
// distribution, and the CPU time that a request costs distribution and dray.
func besideBare(r results, rates, costs metric) string {
	cpu, ok1 := r.ratio(costs, distribution, costs, dray)
	most, ok2 := r.ratio(rates, bareNetHTTP, rates, distribution)
	if !ok1 || !ok2 {
		return ""
	}
	return fmt.Sprintf("Even bare net/http reaches only %s × distribution here: the clients use the same cores, so rates differ less than costs. "+
		"A request costs distribution %s × the CPU time that it costs dray.", number(most, true), number(cpu, true))
}

// bareMicroseconds is the CPU time, in microseconds, that a request costs bareNetHTTP on one
// particular machine. The goal for a hit is meant for this machine.
const bareMicroseconds = 17

// timeHash measures the time to hash a layer in memory. Every server that verifies digests has this
// cost.
func (b *bench) timeHash(layer []byte) {
	begun := time.Now()
	sha256.Sum256(layer)
	b.results.add(hashAlone, dray, time.Since(begun).Seconds())
}

// why explains the missed targets.
func (p page) why(w *strings.Builder) {
	var rows strings.Builder
	for _, t := range targets() {
		explain := reasons()[t.metric]
		if _, _, word := t.verdict(p.results); word != "**missed**" || explain == nil {
			continue
		}
		if text := explain(p.results); text != "" {
			fmt.Fprintf(&rows, "| %s | %s |\n", t.text, text)
		}
	}
	if rows.Len() > 0 {
		fmt.Fprintf(w, "\n### Why\n\n| missed | because |\n|---|---|\n%s", rows.String())
	}
}
