package main

import (
	"fmt"
	"strings"
)

// A target is a bound on a metric of dray, or on its ratio to another metric.
type target struct {
	text    string
	metric  metric
	to      metric // "" for a bound on the metric itself
	server  string // whose
	atLeast bool
	bound   float64
}

func targets() []target {
	return []target{
		{"warm blob over HTTP, 8 streams, against nginx", warmFew, warmFew, nginx, true, 0.95},
		{"warm blob over HTTP, 32 streams, against nginx", warmMany, warmMany, nginx, true, 0.95},
		{"the same, 8 streams, against distribution", warmFew, warmFew, distribution, true, 3},
		{"the same, 32 streams, against distribution", warmMany, warmMany, distribution, true, 3},
		{"CPU of that, 8 streams, against nginx", warmFewCPU, warmFewCPU, nginx, false, 1},
		{"CPU of that, 32 streams, against nginx", warmManyCPU, warmManyCPU, nginx, false, 1},
		{"warm blob over TLS, against nginx", warmTLS, warmTLS, nginx, true, 1.2},
		{"CPU of that, against nginx", warmTLSCPU, warmTLSCPU, nginx, false, 0.8},
		{"manifests by digest, against distribution", manifestsByDigest, manifestsByDigest, distribution, true, 6},
		{"manifests by tag, against distribution", manifestsByTag, manifestsByTag, distribution, true, 50},
		{"cold manifest, first byte, against direct", firstManifest, firstManifest, direct, false, 1.05},
		{"cold layer, first byte, against direct", firstLayer, firstLayer, direct, false, 1},
		{"cold image, against direct", coldWall, coldWall, direct, false, 1.03},
		{"cold image of 200 small layers, against direct", smallWall, smallWall, direct, false, 1.03},
		{"cold 500 MB layer, 25 MB/s a connection, against direct", slowWall, slowWall, direct, false, 0.3},
		{"herd of 32, bytes from the origin", herdBytes, "", "", false, 1.0005},
		{"herd of 32, time, against one client", herdWall, aloneWall, dray, false, 1.03},
		{"herd of 32, first byte of the manifest, against one client", herdManifest, aloneManifest, dray, false, 2},
		{"herd of 32, first byte of a layer, against one client", herdLayer, aloneLayer, dray, false, 2},
		{"cold CPU for 500 MB, in seconds; depends on the machine", unshapedCPU, "", "", false, 0.5},
		{"peak memory after 32 streams, in MB", warmPeak, "", "", false, 64},
		{"peak memory with 1000 clients, in MB", crowdPeak, "", "", false, 256},
	}
}

// beyond are targets that a comparison of programs over the network cannot show.
const beyond = `| hit path beside net/http, CPU a request | ≤ 10 µs | – | not measured here |
| cache of 1,000,000 blobs: start to first hit, memory | ≤ 2 s, ≤ 300 MB | – | not measured here |
`

// verdict compares a run with a target.
func (t target) verdict(r results) (goal, got, word string) {
	sign, unit := "≤", ""
	if t.atLeast {
		sign = "≥"
	}
	value, ok := r.median(t.metric, dray)
	if t.to != "" {
		unit = " ×"
		value, ok = r.ratio(t.metric, dray, t.to, t.server)
	}
	goal = fmt.Sprintf("%s %.4g%s", sign, t.bound, unit)
	if !ok {
		return goal, "–", "not measured"
	}
	word = "**missed**"
	if t.atLeast && value >= t.bound || !t.atLeast && value <= t.bound {
		word = "reached"
	}
	return goal, fmt.Sprintf("%.4g%s", value, unit), word
}

func (p page) targets(w *strings.Builder) {
	w.WriteString("\n## Targets\n\nWhat dray is meant to reach, and what it did in this run. Where other programs had the processor, read the CPU times first: rates and waits suffer more.\n\n" +
		"| target | goal | this run | |\n|---|--:|--:|---|\n")
	for _, t := range targets() {
		goal, got, word := t.verdict(p.results)
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", t.text, goal, got, word)
	}
	w.WriteString(beyond)
}
