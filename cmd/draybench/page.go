package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// page renders the results of a run as Markdown.
type page struct {
	results      results
	plan         plan
	tools        tools
	machine      []fact
	partial      bool
	otherCores   float64            // cores that other programs used meanwhile
	otherCoresIn map[string]float64 // the same, by scenario
	took         time.Duration
}

// table shows metrics, with the ratios of its subject to the other columns.
type table struct {
	title, about string
	scenarios    []string
	columns      []string
	rows         []metric
}

func tables() []table {
	caches := []string{dray, nginx, distribution}
	all := []string{direct, dray, nginx, distribution}
	return []table{
		{"Blobs in the cache", "Many streams fetch whole blobs, or ranges, that every server has. The memory of distribution is that of the process that serves plain HTTP.", []string{"warm"},
			caches, []metric{warmFew, warmFewCPU, warmMany, warmManyCPU, warmRanges, warmRangesCPU, warmTLS, warmTLSCPU, warmPeak}},
		{"Ways to send a file", "What `send` of a listener chooses from: dray three times, each with another way. Hosts differ, above all in how their TCP controls congestion.",
			[]string{"send"}, []string{bySendfile, bySplice, byCopy}, []metric{sendFew, sendFewCPU, sendMany, sendManyCPU}},
		{"Manifests in the cache", "32 connections ask for manifests. The origin is next door here: what a server asks it costs more where it is far away. net/http is the server of Go's standard library with a handler that writes the same bytes and does nothing else.", []string{"manifests"},
			append(caches[:len(caches):len(caches)], bareNetHTTP), []metric{manifestsByDigest, manifestsByDigestCPU, manifestsByTag, manifestsByTagCPU, manifestQuestions}},
		{"The path of a hit beside net/http", "What dray adds when everything is on: clients have names and rights, each request is counted, and gets a line in a log. The other server " +
			"is net/http with a handler that writes the same bytes and does nothing else.", []string{"beside"}, []string{dray, bareNetHTTP}, []metric{besideCPU}},
		{"First byte of what is not in the cache", "The server has started a moment ago. The origin is 20 ms away, and a new connection costs a round trip more; dray, which greets its upstreams at the start, has one.", []string{"first-byte"},
			all, []metric{firstManifest, firstLayer}},
		{"Images that are not in the cache", "The origin is 20 ms away and gives 100 MB/s in all, any part of it to one connection. The image has 10 layers of 25 MB.", []string{"cold", "small"},
			all, []metric{coldWall, coldBytes, smallWall, smallRequests, smallConnections}},
		{"A layer from an origin that throttles connections", "25 MB/s for each connection, without a limit for all together; the servers work at the same time.", []string{"slow"},
			all, []metric{slowWall, slowConnectionCount}},
		{"A layer from an origin next door", "No delay, no limit: what the server itself needs.", []string{"cpu"}, all, []metric{unshapedWall, unshapedCPU}},
		{"A push to Amazon ECR", "An image with one layer goes through dray to a stand-in for ECR, which is reached over a line of limited rate; the same bytes go over that line alone. " +
			"Clients have loopback to dray, so the line is the slower part.", []string{"push"}, []string{dray, lineAlone}, []metric{pushWall}},
		{"A push that is looked at", "An image of ten compressed layers goes the same way, with every check of contents on (names, shape, labels, how it runs, credentials, a rule in CEL), and with none. " +
			"Files are half noise and half text. dray decompresses and reads each layer while it comes.", []string{"checks"}, []string{dray, unchecked}, []metric{checksWall}},
		{"Many clients that want the same", "One client, then 32 at the same time, each time with an empty cache: an image of 8 layers of 25 MB, 20 ms away, 100 MB/s in all. " +
			"Distribution has one round here, because it takes as long as everything else together. 1000 clients pull two layers of 5 MB; not from distribution.", []string{"herd", "crowd"},
			caches, []metric{aloneWall, herdWall, aloneManifest, herdManifest, aloneLayer, herdLayer, herdBytes, herdRequests, crowdPeak, crowdBytes}},
		{"A start with a million blobs", "A directory of 1,000,000 blobs of 8 bytes, whose names the kernel still has in memory. dray serves while it reads the directory.",
			[]string{"million"}, []string{dray}, []metric{millionFirst, millionListed, millionPeak}},
	}
}

func (p page) render() string {
	var w strings.Builder
	w.WriteString("# Benchmarks\n\nThis page is written by `make bench`. It compares dray with nginx (`proxy_cache`), with distribution (`proxy`) and with no cache " +
		"at all, in one run on one machine.\n\n")
	if p.plan.Quick {
		w.WriteString("**A quick run: sizes are far smaller than the tables say, and the numbers mean nothing.**\n\n")
	}
	if p.partial {
		w.WriteString("**Not everything was measured.**\n\n")
	}
	w.WriteString("## The machine\n\n| | |\n|---|---|\n")
	for _, f := range p.machine {
		fmt.Fprintf(&w, "| %s | %s |\n", f.what, f.value)
	}
	fmt.Fprintf(&w, "| other programs | %.2f cores in use on average, during the %s of the run |\n", p.otherCores, p.took.Round(time.Second))
	for _, sentence := range p.tools.Missing {
		fmt.Fprintf(&w, "\n%s.\n", strings.ReplaceAll(sentence, "\n", " "))
	}
	w.WriteString(reading)
	p.targets(&w)
	for _, t := range tables() {
		p.table(&w, t)
	}
	return w.String()
}

const reading = `
## How to read it

- Ratios carry over to other machines better than any number here, and only ratios within a row are comparable: clients, servers and origin share the
  cores, so a server that needs less leaves more to its clients. There is no network card, no driver and no distance but the simulated one.
- Columns such as dray / nginx divide the value of dray by that of nginx. Above 1 is better for GB/s and requests/s, below 1 for everything else.
- Rounds go over the servers by turns, forwards and backwards; a value is the median of its rounds, of which there are seven for what is in the cache and for
  first bytes, and three otherwise. Differences of a few per cent are noise, more so where other
  programs had the processor.
- Clients throw bodies away in the kernel, and over TLS before deciphering them, so that it is the server that is measured. They count bytes and do not verify
  them; other tests do.
- CPU time is what the kernel charged to the server's processes, in steps of 10 ms. Receiving on a loopback interface happens in interrupts, which
  are charged to nobody, or to whoever is running.
- Peak memory is that of the resident set, and for nginx the sum over its processes, in which shared pages count more than once. Pages of the kernel's cache are not in it.
- BBR paces segments even on a loopback interface, which favours servers that copy. Where the host uses it, the run makes a network namespace with cubic
  or, where the kernel does not allow that, with reno.
- All servers run without access logs. nginx has one worker for each core, a lock for what is missing, and keeps tags for 60 seconds, as dray does; it verifies no
  digest, and dray verifies all. Distribution asks the origin about every tag, and keeps descriptors in memory.
- Every server listens on plain HTTP and on TLS (ECDSA P-256). Over TLS each blob has a connection of its own.
`

// subject is the column to compare with the others: dray, or the first one.
func (t table) subject() string {
	if slices.Contains(t.columns, dray) {
		return dray
	}
	return t.columns[0]
}

func (t table) others() []string {
	return slices.DeleteFunc(slices.Clone(t.columns), func(server string) bool { return server == t.subject() })
}

func (p page) table(w *strings.Builder, t table) {
	var rows strings.Builder
	for _, m := range t.rows {
		if p.results[m] == nil {
			continue
		}
		fmt.Fprintf(&rows, "| %s |", m)
		for _, server := range t.columns {
			fmt.Fprintf(&rows, " %s |", number(p.results.median(m, server)))
		}
		for _, server := range t.others() {
			fmt.Fprintf(&rows, " %s |", times(p.results.ratio(m, t.subject(), m, server)))
		}
		rows.WriteString("\n")
	}
	if rows.Len() == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n%s", t.title, t.about)
	for _, name := range t.scenarios {
		if cores, ok := p.otherCoresIn[name]; ok {
			fmt.Fprintf(w, " Other programs used %.2f cores (`%s`).", cores, name)
		}
	}
	w.WriteString("\n\n|")
	for _, server := range t.columns {
		fmt.Fprintf(w, " | %s", server)
	}
	for _, server := range t.others() {
		fmt.Fprintf(w, " | %s / %s", t.subject(), server)
	}
	fmt.Fprintf(w, " |\n|---%s|\n%s", strings.Repeat("|--:", 2*len(t.columns)-1), rows.String())
}

// number formats a value with three significant digits.
func number(v float64, ok bool) string {
	switch {
	case !ok:
		return "–"
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.*f", min(4, 2-int(math.Floor(math.Log10(math.Abs(v))))), v)
}

func times(v float64, ok bool) string {
	if !ok {
		return "–"
	}
	return number(v, ok) + " ×"
}
