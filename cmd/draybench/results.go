package main

import "slices"

// metric is the name of a measurement of a server: the text of its row in a table, with the unit.
type metric string

const (
	warmFew       metric = "8 streams, GB/s"
	warmFewCPU    metric = "8 streams, CPU s/GB"
	warmMany      metric = "32 streams, GB/s"
	warmManyCPU   metric = "32 streams, CPU s/GB"
	warmPeak      metric = "peak memory after 32 streams, MB"
	warmRanges    metric = "ranges of 1 MiB, 8 streams, GB/s"
	warmRangesCPU metric = "ranges of 1 MiB, 8 streams, CPU s/GB"
	sendFew       metric = "by file, 8 streams, GB/s"
	sendFewCPU    metric = "by file, 8 streams, CPU s/GB"
	sendMany      metric = "by file, 32 streams, GB/s"
	sendManyCPU   metric = "by file, 32 streams, CPU s/GB"
	warmTLS       metric = "TLS, 8 streams, GB/s"
	warmTLSCPU    metric = "TLS, 8 streams, CPU s/GB"

	manifestsByDigest    metric = "by digest, requests/s"
	manifestsByDigestCPU metric = "by digest, CPU µs/request"
	manifestsByTag       metric = "by tag, requests/s"
	manifestsByTagCPU    metric = "by tag, CPU µs/request"
	manifestQuestions    metric = "by tag, requests to the origin per request"

	besideCPU metric = "by tag, everything on, CPU µs/request"

	firstManifest metric = "manifest, first byte, ms"
	firstLayer    metric = "layer, first byte, ms"

	coldWall         metric = "image, s"
	coldBytes        metric = "image, bytes from the origin / bytes of the image"
	smallWall        metric = "200 small layers, s"
	smallRequests    metric = "200 small layers, requests to the origin"
	smallConnections metric = "200 small layers, connections to the origin"

	slowWall            metric = "500 MB layer, 25 MB/s a connection, s"
	slowConnectionCount metric = "500 MB layer, connections to the origin"

	unshapedWall metric = "500 MB layer, origin not throttled, s"
	pushWall     metric = "1 GB through a line of 100 MB/s, s"
	checksWall   metric = "1 GB of compressed layers, s"

	hashAlone   metric = "500 MB, SHA-256 alone, s" // not in a table, but in an explanation
	unshapedCPU metric = "500 MB layer, origin not throttled, CPU s"

	aloneWall     metric = "one client, s"
	aloneManifest metric = "one client, manifest, first byte, ms"
	aloneLayer    metric = "one client, layer, first byte, ms"
	herdWall      metric = "32 clients, s"
	herdManifest  metric = "32 clients, manifest, first byte (median), ms"
	herdLayer     metric = "32 clients, layer, first byte (median), ms"
	herdBytes     metric = "32 clients, bytes from the origin / bytes of the image"
	herdRequests  metric = "32 clients, requests to the origin"
	crowdPeak     metric = "1000 clients, peak memory, MB"
	crowdBytes    metric = "1000 clients, bytes from the origin / bytes of the image"

	fleetAlone   metric = "one client of one member, s"
	fleetWall    metric = "8 clients of each of 5 members, s"
	fleetBytes   metric = "8 clients of each of 5 members, bytes from the origin / bytes of the image"
	fleetMedian  metric = "layer in one stream: an offset at a client of a follower after one of the holder, median, ms"
	fleetTail    metric = "the same, 99th percentile, ms"
	rangesMedian metric = "layer in parallel ranges: an offset at a client of a follower after one of the holder, median, ms"
	rangesTail   metric = "layer in parallel ranges: the same, 99th percentile, ms"
	emptiedBytes metric = "emptied member with a bucket, bytes from the origin / bytes of the image"
	fleetIdle    metric = "idle processor, %"
	fleetsWall   metric = "image of 100 MB, 8 clients of each of 5, s"
	fleetsBytes  metric = "image of 100 MB, 8 clients of each of 5, bytes from the origin / bytes of the image"
	emptiedRate  metric = "image in the bucket, MB/s"

	millionFirst  metric = "start to manifest and layer, s"
	millionListed metric = "start to the end of reading the directory, s"
	millionPeak   metric = "peak memory until then, MB"
)

// results has the values of every round, by metric and server.
type results map[metric]map[string][]float64

func (r results) add(m metric, server string, value float64) {
	if r[m] == nil {
		r[m] = map[string][]float64{}
	}
	r[m][server] = append(r[m][server], value)
}

// median returns the median over all rounds, or false if nothing was measured.
func (r results) median(m metric, server string) (float64, bool) {
	values := slices.Sorted(slices.Values(r[m][server]))
	switch n := len(values); {
	case n == 0:
		return 0, false
	case n%2 == 1:
		return values[n/2], true
	default:
		return (values[n/2-1] + values[n/2]) / 2, true
	}
}

// ratio returns the ratio of two medians, which may be of different metrics. It returns false if a
// median is missing, or the second is 0.
func (r results) ratio(m metric, server string, to metric, other string) (float64, bool) {
	a, ok1 := r.median(m, server)
	b, ok2 := r.median(to, other)
	if !ok1 || !ok2 || b == 0 {
		return 0, false
	}
	return a / b, true
}

// difference returns the difference of two medians, or false if one of them is missing.
func (r results) difference(m metric, server, other string) (float64, bool) {
	a, ok1 := r.median(m, server)
	b, ok2 := r.median(m, other)
	return a - b, ok1 && ok2
}
