package page

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dray/mirror/admin/api"
)

// span is a length of time that the chart can show.
type span struct {
	Key, Text string
	length    time.Duration
	points    int
	mark      string // the layout of times in the table
}

// spans are the lengths of time that the chart can show. The first is the default.
var spans = []span{
	{"", "24 hours", 24 * time.Hour, 48, "15:04"},
	{"7d", "7 days", 7 * 24 * time.Hour, 56, "Mon 15:04"},
	{"30d", "30 days", 30 * 24 * time.Hour, 60, "2006-01-02 15:04"},
}

// groups are the parts of a bar, each with its sources of bytes. The lowest part is first.
var groups = []struct {
	name, class string
	sources     []string
}{
	{"held", "disk", []string{"memory", "disk", "cache", "stale", "updating", "prefetch"}},
	{"shared", "shared", []string{"flight", "member", "bucket"}},
	{"origin", "origin", []string{"origin"}},
	{"uncached", "other", []string{"direct", "other"}},
}

// chart is the traffic over time.
type chart struct {
	Span  span
	Bars  []column
	Lines []string // the hit ratio: each string has the points of one polyline (see ratioLines)
	Rows  []chartRow
	Most  int64 // bytes of the highest bar
	Sum   []share
	Ratio float64 // the share of blob reads that found the bytes held; -1 if there were no reads
	From  time.Time
	To    time.Time
	Known bool
}

// column is one bar of the chart.
type column struct {
	X, Width float64
	Parts    []columnPart
	Unknown  bool
}

type columnPart struct {
	Class     string
	Y, Height float64
}

// trafficColumns are the columns of the chart's table. A # marks columns of numbers.
var trafficColumns = []string{"From (UTC)", "#Sent", "Sources", "#Layers held"}

// chartRow is one line of the table that has the numbers of the chart.
type chartRow struct {
	At, Sent, Sources, Ratio string
}

// The size of a chart in the units of its SVG viewBox.
const (
	chartWidth  = 960.0
	chartHeight = 100.0
)

// spanOf returns the span that a request selects by its query parameter time, or the default span.
func spanOf(r *http.Request) span {
	for _, s := range spans {
		if r.URL.Query().Get("time") == s.Key {
			return s
		}
	}
	return spans[0]
}

// chartOf draws the history of a span.
func chartOf(h api.History, s span) *chart {
	c := &chart{Span: s, Ratio: -1}
	if len(h.Points) == 0 {
		return c
	}
	c.From, c.To = h.Points[0].At, h.Points[len(h.Points)-1].At.Add(time.Duration(h.Step*float64(time.Second)))
	sums := map[string]int64{}
	var hits, misses int64
	for _, p := range h.Points {
		var sent int64
		for source, n := range p.Sent {
			sums[source] += n
			sent += n
		}
		c.Most = max(c.Most, sent)
		hits, misses = hits+p.Hits, misses+p.Misses
		c.Known = c.Known || p.Seconds > 0
	}
	c.Sum = shares(sums)
	if hits+misses > 0 {
		c.Ratio = float64(hits) / float64(hits+misses)
	}
	width := chartWidth / float64(len(h.Points))
	for i, p := range h.Points {
		c.Bars = append(c.Bars, c.column(p, float64(i)*width, width))
		c.Rows = append(c.Rows, rowOf(p, s))
	}
	c.Lines = ratioLines(h.Points, width)
	return c
}

// column draws the bytes of one point.
func (c *chart) column(p api.HistoryPoint, x, width float64) column {
	bar := column{X: x + width*0.1, Width: width * 0.8, Unknown: p.Seconds == 0}
	y := chartHeight
	for _, g := range groups {
		var n int64
		for _, source := range g.sources {
			n += p.Sent[source]
		}
		if n > 0 {
			height := chartHeight * float64(n) / float64(max(c.Most, 1))
			y -= height
			bar.Parts = append(bar.Parts, columnPart{g.class, y, height})
		}
	}
	return bar
}

// ratioLines returns the hit ratio as polylines. A point without readers ends a line.
func ratioLines(points []api.HistoryPoint, width float64) (all []string) {
	var line []string
	end := func() {
		if len(line) == 1 { // a point alone is drawn as a short line
			line = append(line, line[0])
		}
		if len(line) > 0 {
			all = append(all, strings.Join(line, " "))
		}
		line = nil
	}
	for i, p := range points {
		if p.Hits+p.Misses == 0 {
			end()
			continue
		}
		ratio := float64(p.Hits) / float64(p.Hits+p.Misses)
		line = append(line, number((float64(i)+0.5)*width)+","+number(chartHeight*(1-ratio)))
	}
	end()
	return all
}

func rowOf(p api.HistoryPoint, s span) chartRow {
	row := chartRow{At: p.At.UTC().Format(s.mark), Ratio: "–"}
	var sent int64
	for _, n := range p.Sent {
		sent += n
	}
	row.Sent, row.Sources = size(sent), cmp.Or(sharesText(shares(p.Sent)), "–")
	if p.Seconds == 0 {
		row.Sent = "not known"
	}
	if p.Hits+p.Misses > 0 {
		row.Ratio = percent(float64(p.Hits) / float64(p.Hits+p.Misses))
	}
	return row
}

// ratioText returns, as text, the share of the requested layers that were held.
func ratioText(c *chart) string {
	if c.Ratio < 0 {
		return "no client has asked for a layer"
	}
	return fmt.Sprintf("%s of the layers that clients asked for were held", percent(c.Ratio))
}

// growth returns the growth of the cache on disk, in bytes a day, according to the history. period
// is the time between the first and the last measurement. If that time is less than an hour, growth
// returns zeros.
func growth(h api.History) (perDay float64, period time.Duration) {
	first, last := -1, -1
	for i, p := range h.Points {
		if p.Stored > 0 && p.Seconds > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return 0, 0
	}
	period = h.Points[last].At.Sub(h.Points[first].At)
	if period < time.Hour {
		return 0, 0
	}
	return float64(h.Points[last].Stored-h.Points[first].Stored) / period.Hours() * 24, period
}
