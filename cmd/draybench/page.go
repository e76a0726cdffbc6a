package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// page renders the results of a run as Markdown.
type page struct {
	results      results
	plan         plan
	tools        tools
	machine      []fact
	partial      bool
	otherCores   float64            // cores that other programs used during the run
	otherCoresIn map[string]float64 // cores that other programs used, by scenario
	took         time.Duration
}

// table shows metrics by server. One server is the subject of the table. Ratios compare the subject
// with each of the other servers.
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
		{"Blobs in the cache", "Many streams fetch whole blobs, or ranges, that every server holds. Distribution runs as two processes, one for plain HTTP and one for TLS; the table has the memory of the process for plain HTTP.", []string{"warm"},
			caches, []metric{warmFew, warmFewCPU, warmMany, warmManyCPU, warmRanges, warmRangesCPU, warmTLS, warmTLSCPU, warmPeak}},
		{"Ranges of blobs in the cache", "Several clients, with one connection each, fetch ranges. Real clients do this to fetch a layer in parallel, or to fetch only the files of a layer that they need. The table does not include distribution.", []string{"ranges"},
			[]string{dray, nginx}, rangeRows(rangeLoad.warmRate, rangeLoad.warmCost)},
		{"Ways to send a file", "The setting `send` of a listener chooses how dray sends a file. This table compares the three choices. Which choice is fastest depends on the host, above all on its TCP congestion control.",
			[]string{"send"}, []string{bySendfile, bySplice, byCopy}, []metric{sendFew, sendFewCPU, sendMany, sendManyCPU}},
		{"Manifests in the cache", "32 connections request manifests. The origin is on the same machine; a request to a distant origin costs more. net/http is the server of Go's standard library, with a handler that only writes the same bytes.", []string{"manifests"},
			append(caches[:len(caches):len(caches)], bareNetHTTP), []metric{manifestsByDigest, manifestsByDigestCPU, manifestsByTag, manifestsByTagCPU, manifestQuestions}},
		{"The path of a hit beside net/http", "The table shows how much CPU time dray adds to a request with all features on: clients have names and rights, and dray counts and logs each request. The other server is net/http, with a handler that only writes the same bytes.", []string{"beside"}, []string{dray, bareNetHTTP}, []metric{besideCPU}},
		{"First byte of content that is not in the cache", "Each server has just started. The origin is 20 ms away, and a new connection costs another round trip. dray already has a connection, because it opens one to each upstream when it starts.", []string{"first-byte"},
			all, []metric{firstManifest, firstLayer}},
		{"Images that are not in the cache", "The origin is 20 ms away. It sends 100 MB/s in total, and one connection can use all of it. The image has 10 layers of 25 MB.", []string{"cold", "small"},
			all, []metric{coldWall, coldBytes, smallWall, smallRequests, smallConnections}},
		{"A layer from an origin that throttles connections", "The origin sends 25 MB/s on each connection, without a limit on the total. All servers run at the same time.", []string{"slow"},
			all, []metric{slowWall, slowConnectionCount}},
		{"Ranges of a layer that is not in the cache", "Several clients, with one connection each, share the ranges of a layer of 2 GB and fetch them in a random order. The origin is 20 ms away. The table does not include nginx and distribution, because they first fetch the layer in order.", []string{"cold-ranges"},
			[]string{direct, dray}, coldRangeRows()},
		{"A layer from an origin on the same machine", "The origin adds no delay and no limit, so the table shows the cost of the server itself.", []string{"cpu"}, all, []metric{unshapedWall, unshapedCPU}},
		{"A push to Amazon ECR", "A client pushes an image with one layer through dray to a stand-in for ECR, over a line of limited rate. For comparison, a client sends the same bytes over the line without dray. Clients reach dray over loopback, so the line is the bottleneck.", []string{"push"}, []string{dray, lineAlone}, []metric{pushWall}},
		{"A push with checks", "A client pushes an image of ten compressed layers over the same line, once with all checks of contents (names, shape, labels, runtime settings, credentials, a rule in CEL), and once without checks. Files are half noise and half text. dray decompresses and reads each layer while it arrives.", []string{"checks"}, []string{dray, unchecked}, []metric{checksWall}},
		{"Many clients that pull the same image", "One client, and then 32 at the same time, pull an image of 8 layers of 25 MB into an empty cache. The origin is 20 ms away and sends 100 MB/s in total. Distribution has only one round, because it takes as long as all other servers together. In another run, 1000 clients pull two layers of 5 MB, but not from distribution.", []string{"herd", "crowd"},
			caches, []metric{aloneWall, herdWall, aloneManifest, herdManifest, aloneLayer, herdLayer, herdBytes, herdRequests, crowdPeak, crowdBytes}},
		{"A fleet", "Five drays share one Redis. The origin is 20 ms away and sends 40 MB/s. The members are 0.5 ms away from each other: programs that forward connections simulate this distance. Clients pull an image of 1 GB that no member has. Then the run measures, 1000 times, how much later a byte of a layer reaches a client of a follower than a client of the holder. If the holder fetches a layer in parallel ranges, the ranges arrive out of order. When the first missing range arrives, the holder's client gets many ranges at once, and the follower gets them at the speed of the connection. Then a member with an empty cache gets an image of 500 MB from a bucket (versitygw). The table leaves out measurements with less than 15 % of idle processor.", []string{"fleet"},
			[]string{dray}, []metric{fleetAlone, fleetWall, fleetBytes, fleetMedian, fleetTail, rangesMedian, rangesTail, emptiedBytes, fleetIdle}},
		{"An emptied member with a bucket", "The bucket sends 100 MB/s. For comparison, a client fetches the same objects from the bucket by ranges of 8 MiB, 12 at a time.", []string{"fleet"},
			[]string{dray, rangedGETs}, []metric{emptiedRate}},
		{"The same herd at distribution", "Five instances of each server share a Redis and a bucket that sends 100 MB/s. The origin is 20 ms away and sends 40 MB/s.", []string{"fleet"},
			[]string{dray, distribution}, []metric{fleetsWall, fleetsBytes}},
		{"A start with a million blobs", "dray starts on a directory of 1,000,000 blobs of 8 bytes, and serves while it reads the directory. The kernel still has the file names in memory.",
			[]string{"million"}, []string{dray}, []metric{millionFirst, millionListed, millionPeak}},
	}
}

func (p page) render() string {
	var w strings.Builder
	w.WriteString("# Benchmarks\n\n" + wrapped("`make bench` writes this page. It compares dray with nginx (`proxy_cache`), with distribution (`proxy`) and with no cache, in one run on one machine.") + "\n\n")
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

- Ratios carry over to other machines better than absolute numbers. Compare only numbers of one row.
  Clients, servers and origin share the cores, so a server that needs less CPU leaves more CPU to
  its clients. The run uses no network card and no driver, and simulates distance.
- A column such as dray / nginx divides the value of dray by that of nginx. Above 1 is better for
  GB/s and requests/s. Below 1 is better for all other rows.
- Each round measures all servers in turn; every second round, in reverse. A value is the median of
  seven rounds for content in the cache and for first bytes, and of three rounds for the rest.
  Differences of a few percent are noise, more so if other programs used the processor.
- The text above each table says how many cores other programs used while a scenario ran, with the
  name of the scenario in brackets. ` + "`go run ./cmd/draybench -only warm`" + ` measures only the scenario
  ` + "`warm`" + `.
- Clients discard bodies in the kernel, and over TLS before decryption, so that the server is the
  bottleneck. They count bytes, but do not verify them. Other tests verify content.
- CPU time is the time that the kernel charged to the server's processes, in steps of 10 ms. The
  kernel handles packets from a loopback interface in interrupts. It charges the time of an
  interrupt to no process, or to the process that happens to run.
- Peak memory is the resident set. For nginx it is the sum over its processes, which counts shared
  pages more than once. It does not include the kernel's page cache.
- BBR paces segments even on a loopback interface, which favours servers that send files by
  copying them. If the host uses BBR, the run creates a network namespace with cubic, or with reno
  if the kernel does not allow cubic.
- All servers run without access logs, except dray where a table says that it logs each request.
  nginx has one worker for each core, locks a missing blob during its fetch, and caches tags for 60
  seconds, as dray does. dray verifies all digests, and nginx verifies none. Distribution asks the
  origin about every tag, and caches descriptors in memory.
- Every server listens on plain HTTP and on TLS (ECDSA P-256). Over TLS each blob has a connection
  of its own.
`

// subject returns the column that the table compares with the other columns: dray or, without it,
// the first column.
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
	about := t.about
	for _, name := range t.scenarios {
		if cores, ok := p.otherCoresIn[name]; ok {
			about += fmt.Sprintf(" Other programs used %.2f cores (`%s`).", cores, name)
		}
	}
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n|", t.title, wrapped(about))
	for _, server := range t.columns {
		fmt.Fprintf(w, " | %s", server)
	}
	for _, server := range t.others() {
		fmt.Fprintf(w, " | %s / %s", t.subject(), server)
	}
	fmt.Fprintf(w, " |\n|---%s|\n%s", strings.Repeat("|--:", 2*len(t.columns)-1), rows.String())
}

// number formats a value with at least three significant digits, but at most four decimals. If ok
// is false, there is no value, and number returns a dash.
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

// wrapped breaks the lines of a paragraph at 100 columns.
func wrapped(text string) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 100 {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n")
}
