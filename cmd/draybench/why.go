package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// reasons say what stands behind targets that a run missed, with what that run measured. A reason is one only if its numbers are there.
func reasons() map[metric]func(r results) string {
	return map[metric]func(r results) string{
		manifestsByDigest: func(r results) string {
			cpu, ok1 := r.ratio(manifestsByDigestCPU, distribution, manifestsByDigestCPU, dray)
			own, ok2 := r.median(manifestsByDigestCPU, dray)
			bare, ok3 := r.median(besideCPU, bareNetHTTP)
			if !ok1 || !ok2 || !ok3 {
				return ""
			}
			return fmt.Sprintf("Clients take a good part of the same cores, so rates are closer together than costs: a request costs distribution %s × the processor time that it costs dray. "+
				"Of the %s µs of dray most are those of net/http and of the kernel; net/http with nothing behind it takes %s.", number(cpu, true), number(own, true), number(bare, true))
		},
		besideCPU: func(r results) string {
			bare, ok := r.median(besideCPU, bareNetHTTP)
			more, ok2 := r.difference(besideCPU, dray, bareNetHTTP)
			if !ok || !ok2 {
				return ""
			}
			return fmt.Sprintf("net/http alone takes %s µs on this machine, and dray adds %s × that: rights, counters, and a line in the log, which is a system call of its own.", number(bare, true), number(more/bare, true))
		},
		firstManifest: func(r results) string {
			late, ok := r.difference(firstManifest, dray, direct)
			other, ok2 := r.difference(firstManifest, nginx, direct)
			if !ok || !ok2 {
				return ""
			}
			return fmt.Sprintf("%s ms more than direct, of which a server between takes some in any case (nginx %s): dray has just started, has the whole manifest, has verified and kept it before the first byte leaves.",
				number(late, true), number(other, true))
		},
		herdWall: func(r results) string {
			one, ok1 := r.median(aloneWall, dray)
			all, ok2 := r.median(herdWall, dray)
			if !ok1 || !ok2 {
				return ""
			}
			return fmt.Sprintf("The clients, the origin and dray share the cores: %s s instead of %s, in which every client gets every byte, and the origin is slower for it, too.", number(all, true), number(one, true))
		},
		unshapedCPU: func(r results) string {
			alone, ok := r.median(hashAlone, dray)
			other, ok2 := r.median(unshapedCPU, nginx)
			if !ok || !ok2 {
				return ""
			}
			return fmt.Sprintf("SHA-256 alone takes %s s of one core here, and nginx, which verifies nothing, %s s for everything.", number(alone, true), number(other, true))
		},
	}
}

// timeHash measures what no server that verifies can save: the hash of a layer that is in memory.
func (b *bench) timeHash(layer []byte) {
	begun := time.Now()
	sha256.Sum256(layer)
	b.results.add(hashAlone, dray, time.Since(begun).Seconds())
}

// why explains the targets that were missed.
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
