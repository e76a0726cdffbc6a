package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// The simulation assumes that a miss costs missDelay plus the time that its bytes take at missRate.
const (
	missDelay = 50 * time.Millisecond
	missRate  = 100e6 // bytes a second
)

// A trace is divided into warmUp equal parts. The first part fills the cache, and is not counted.
const warmUp = 5

// simulation has the flags of draybench simulate.
type simulation struct {
	logs     []string
	shares   []share
	requests int
	seeds    int
	page     string
}

// share is a size of a cache, relative to the footprint of a trace.
type share struct {
	text  string
	ratio float64
}

// score is the result of a policy. objects is the share of the requests that are hits, and bytes is
// the share of the bytes that are in hits. waiting is the time that hits saved, as a share of the
// time that the trace would take if every request were a miss.
type score struct{ objects, bytes, waiting float64 }

func (s score) plus(t score, weight float64) score {
	return score{s.objects + weight*t.objects, s.bytes + weight*t.bytes, s.waiting + weight*t.waiting}
}

func (s score) String() string {
	return fmt.Sprintf("%.1f / %.1f / %.1f", 100*s.objects, 100*s.bytes, 100*s.waiting)
}

func simulate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parseSimulation(args, stderr)
	if err != nil {
		return err
	}
	if len(s.logs) > 0 {
		return s.ownLog(ctx, stdout)
	}
	table, err := s.synthetic(ctx, stderr)
	if err != nil {
		return err
	}
	if s.page == "" {
		_, err = io.WriteString(stdout, table)
		return err
	}
	return os.WriteFile(s.page, []byte(fmt.Sprintf(evictionPage, s.requests, s.seeds, table, workloadList())), 0o644)
}

func parseSimulation(args []string, stderr io.Writer) (simulation, error) {
	var s simulation
	var sizes string
	flags := flag.NewFlagSet("draybench simulate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("log", "a log of requests, dray's own (text or JSON) or CSV of digest and size; - is standard input; repeat it for more, in order of time", func(name string) error {
		s.logs = append(s.logs, name)
		return nil
	})
	flags.StringVar(&sizes, "sizes", "5%,10%", "sizes of the cache, as shares of what everything in the log takes together")
	flags.IntVar(&s.requests, "requests", 1_000_000, "requests of each synthetic trace, where there is no log")
	flags.IntVar(&s.seeds, "seeds", 3, "synthetic traces of each kind, whose mean is shown")
	flags.StringVar(&s.page, "page", "", "write the page about synthetic traces to this file")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; name logs with -log", flags.Arg(0))
	}
	if s.requests < 1 || s.seeds < 1 {
		return s, errors.New("-requests and -seeds must be positive")
	}
	if s.page != "" && len(s.logs) > 0 {
		return s, errors.New("-page is for synthetic traces")
	}
	for _, text := range separated(sizes) {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return s, fmt.Errorf("-sizes %s: write shares such as 5%%,10%%", sizes)
		}
		s.shares = append(s.shares, share{strings.TrimSuffix(text, "%") + " %", percent / 100})
	}
	return s, nil
}

// ownLog prints the scores of all policies for a log.
func (s simulation) ownLog(ctx context.Context, stdout io.Writer) error {
	r := newReader()
	for _, name := range s.logs {
		if err := r.readFile(name); err != nil {
			return err
		}
	}
	if len(r.requests) == 0 {
		return fmt.Errorf("no request for content in %d lines that are something else, and %d without digest or size", r.skipped, r.unknown)
	}
	fmt.Fprintf(stdout, "%d requests for %d objects, which take %s together; %d other lines, %d requests without digest or size\n\n",
		len(r.requests), len(r.objects), gigabytes(r.footprint()), r.skipped, r.unknown)
	columns := make([]string, len(s.shares))
	for i, sh := range s.shares {
		columns[i] = sh.text + " (" + gigabytes(int64(sh.ratio*float64(r.footprint()))) + ")"
	}
	rows := map[string][]string{}
	for _, c := range contenders() {
		for _, sh := range s.shares {
			got, err := play(ctx, &r.trace, c, sh.ratio)
			if err != nil {
				return err
			}
			rows[c.name] = append(rows[c.name], got.String())
		}
	}
	_, err := io.WriteString(stdout, markdown(columns, rows))
	return err
}

func (r *reader) readFile(name string) error {
	if name == "-" {
		return r.read(os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.read(f)
}

// synthetic returns the table of all workloads. Each score is the mean over the seeds.
func (s simulation) synthetic(ctx context.Context, stderr io.Writer) (string, error) {
	var columns []string
	rows := map[string][]string{}
	for _, w := range workloads() {
		sums := map[string][]score{}
		for seed := range s.seeds {
			t := w.make(s.requests, uint64(seed+1))
			fmt.Fprintf(stderr, "%s, seed %d: %d objects, %s\n", w.name, seed+1, len(t.objects), gigabytes(t.footprint()))
			for _, c := range contenders() {
				for i, sh := range s.shares {
					got, err := play(ctx, t, c, sh.ratio)
					if err != nil {
						return "", err
					}
					if len(sums[c.name]) <= i {
						sums[c.name] = append(sums[c.name], score{})
					}
					sums[c.name][i] = sums[c.name][i].plus(got, 1/float64(s.seeds))
				}
			}
		}
		for i, sh := range s.shares {
			columns = append(columns, w.name+" "+sh.text)
			for _, c := range contenders() {
				rows[c.name] = append(rows[c.name], sums[c.name][i].String())
			}
		}
	}
	return markdown(columns, rows), nil
}

// play runs a trace on a policy, and returns its score. ratio is the size of the cache, as a share
// of the footprint of the trace.
func play(ctx context.Context, t *trace, c contender, ratio float64) (score, error) {
	p := c.make(t, int64(ratio*float64(t.footprint())))
	var all, hit score
	for at, o := range t.requests {
		if at%65536 == 0 && ctx.Err() != nil {
			return score{}, context.Cause(ctx)
		}
		was := p.request(at)
		if at < len(t.requests)/warmUp {
			continue
		}
		size := float64(t.objects[o].size)
		cost := score{1, size, missDelay.Seconds() + size/missRate}
		all = all.plus(cost, 1)
		if was {
			hit = hit.plus(cost, 1)
		}
	}
	over := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	return score{over(hit.objects, all.objects), over(hit.bytes, all.bytes), over(hit.waiting, all.waiting)}, nil
}

func markdown(columns []string, rows map[string][]string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "| policy | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, c := range contenders() {
		fmt.Fprintf(&w, "| %s | %s |\n", c.name, strings.Join(rows[c.name], " | "))
	}
	return w.String()
}

func gigabytes(n int64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }

func workloadList() string {
	var w strings.Builder
	for _, l := range workloads() {
		fmt.Fprintf(&w, "- **%s**: %s.\n", l.name, l.about)
	}
	return w.String()
}
