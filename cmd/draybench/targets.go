package main

import (
	"fmt"
	"strings"
)

// target is a bound on one of three values: a metric of dray, the ratio of a metric of dray to a
// metric of a server, or the difference between the values of one metric for dray and for a server.
type target struct {
	text    string
	metric  metric
	to      metric // the server's metric to divide by; "" for no ratio
	server  string // the server to compare with; it can be dray itself
	atLeast bool
	bound   float64
	// If less is true, the bound is on the difference.
	less bool
}

func targets() []target {
	return append([]target{
		{text: "warm blob over HTTP, 8 streams, against nginx", metric: warmFew, to: warmFew, server: nginx, atLeast: true, bound: 0.95},
		{text: "warm blob over HTTP, 32 streams, against nginx", metric: warmMany, to: warmMany, server: nginx, atLeast: true, bound: 0.95},
		{text: "the same, 8 streams, against distribution", metric: warmFew, to: warmFew, server: distribution, atLeast: true, bound: 3},
		{text: "the same, 32 streams, against distribution", metric: warmMany, to: warmMany, server: distribution, atLeast: true, bound: 3},
		{text: "CPU of that, 8 streams, against nginx", metric: warmFewCPU, to: warmFewCPU, server: nginx, bound: 1},
		{text: "CPU of that, 32 streams, against nginx", metric: warmManyCPU, to: warmManyCPU, server: nginx, bound: 1},
		{text: "warm blob over TLS, against nginx", metric: warmTLS, to: warmTLS, server: nginx, atLeast: true, bound: 1.2},
		{text: "CPU of that, against nginx", metric: warmTLSCPU, to: warmTLSCPU, server: nginx, bound: 0.8},
		{text: "manifests by digest, against distribution", metric: manifestsByDigest, to: manifestsByDigest, server: distribution, atLeast: true, bound: 6},
		{text: "manifests by tag, against distribution", metric: manifestsByTag, to: manifestsByTag, server: distribution, atLeast: true, bound: 50},
		{text: "hit path beside net/http, CPU a request, in µs", metric: besideCPU, server: bareNetHTTP, less: true, bound: 10},
		{text: "cold manifest, first byte, against direct", metric: firstManifest, to: firstManifest, server: direct, bound: 1.05},
		{text: "cold layer, first byte, against direct", metric: firstLayer, to: firstLayer, server: direct, bound: 1},
		{text: "cold image, against direct", metric: coldWall, to: coldWall, server: direct, bound: 1.03},
		{text: "cold image of 200 small layers, against direct", metric: smallWall, to: smallWall, server: direct, bound: 1.03},
		{text: "cold 500 MB layer, 25 MB/s a connection, against direct", metric: slowWall, to: slowWall, server: direct, bound: 0.3},
		{text: "herd of 32, bytes from the origin", metric: herdBytes, bound: 1.0005},
		{text: "herd of 32, time, against one client", metric: herdWall, to: aloneWall, server: dray, bound: 1.03},
		{text: "herd of 32, first byte of the manifest, against one client", metric: herdManifest, to: aloneManifest, server: dray, bound: 2},
		{text: "herd of 32, first byte of a layer, against one client", metric: herdLayer, to: aloneLayer, server: dray, bound: 2},
		{text: "cold CPU for 500 MB, in seconds; depends on the machine", metric: unshapedCPU, bound: 0.5},
		{text: "push of 1 GB to ECR, against the line alone", metric: pushWall, to: pushWall, server: lineAlone, bound: 1.1},
		{text: "push of 1 GB with all checks of contents, against none", metric: checksWall, to: checksWall, server: unchecked, bound: 1.3},
		{text: "peak memory after 32 streams, in MB", metric: warmPeak, bound: 64},
		{text: "peak memory with 1000 clients, in MB", metric: crowdPeak, bound: 256},
		{text: "herd on a fleet of 5, bytes from the origin", metric: fleetBytes, bound: 1.01},
		{text: "herd on a fleet of 5, time, against one client of one member", metric: fleetWall, to: fleetAlone, server: dray, bound: 1.15},
		{text: "from the holder to a follower, median in ms", metric: fleetMedian, bound: 5},
		{text: "emptied member with a bucket, rate, against ranged GETs", metric: emptiedRate, to: emptiedRate, server: rangedGETs, bound: 0.9, atLeast: true},
		{text: "emptied member with a bucket, bytes from the origin", metric: emptiedBytes, bound: 0},
		{text: "cache of 1,000,000 blobs, start to first hit, in seconds", metric: millionFirst, bound: 2},
		{text: "cache of 1,000,000 blobs, peak memory, in MB", metric: millionPeak, bound: 300},
	}, rangeTargets()...)
}

// verdict compares the results of a run with a target. It returns the texts of the goal, of the
// measured value, and of the comparison.
func (t target) verdict(r results) (goal, got, word string) {
	sign, unit := "≤", ""
	if t.atLeast {
		sign = "≥"
	}
	value, ok := r.median(t.metric, dray)
	switch {
	case t.less:
		value, ok = r.difference(t.metric, dray, t.server)
	case t.to != "":
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
	w.WriteString("\n## Targets\n\n" + wrapped("The table compares the goals for dray with this run. If other programs used the processor, trust CPU times more than rates and waits.") + "\n\n| target | goal | this run | |\n|---|--:|--:|---|\n")
	for _, t := range targets() {
		goal, got, word := t.verdict(p.results)
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", t.text, goal, got, word)
	}
	p.why(w)
}
