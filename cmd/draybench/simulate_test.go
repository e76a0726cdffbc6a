package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

var sumA, sumB, sumC = digest.FromString("a"), digest.FromString("b"), digest.FromString("c")

// asked are the requests of a reader, as sizes.
func asked(r *reader) (out []int64) {
	for _, i := range r.requests {
		out = append(out, r.objects[i].size)
	}
	return out
}

func TestReadLogs(t *testing.T) {
	const head = "time=2026-11-25T16:45:18.524Z level=INFO msg=request listener=main client=127.0.0.1:34036 "
	text := func(rest string) string { return head + rest + "\n" }
	ranged := func(second, rest string) string {
		return strings.Replace(text("method=GET kind=blob status=206 took=1ms "+rest), "45:18", second, 1)
	}
	for name, tc := range map[string]struct {
		log              string
		want             []int64
		skipped, unknown int
	}{
		"nothing": {},
		"text": {
			log: text("method=GET kind=manifest status=200 bytes=552 took=474.355µs upstream=ecr repository=team/app reference=v2 digest="+string(sumA)+" source=cache") +
				text("method=GET kind=blob status=200 bytes=78 took=130µs upstream=ecr repository=team/app reference="+string(sumB)+` source=disk agent="a \"b\" size=9 method=PUT"`) +
				text("method=HEAD kind=blob status=200 bytes=0 took=1ms size=78 reference="+string(sumB)) +
				text("method=GET kind=blob status=404 bytes=90 took=1ms reference="+string(sumB)) +
				text("method=GET kind=tags status=200 bytes=90 took=1ms") +
				text("method=PUT kind=manifest status=201 bytes=0 took=51ms reference=v2") +
				"time=2026-11-25T16:45:18.524Z level=INFO msg=listening listener=main\n" +
				text("method=GET kind=manifest status=200 bytes=552 took=1ms reference=v2"),
			want: []int64{552, 78}, skipped: 5, unknown: 1,
		},
		"JSON": {
			log: `{"time":"2026-11-25T16:45:18.5Z","level":"INFO","msg":"request","client":"127.0.0.1:1","method":"GET","kind":"manifest","status":200,"bytes":552,"took":474355,"reference":"v2","digest":"` + string(sumA) + `"}` + "\n" +
				`{"time":"2026-11-25T16:45:18.5Z","level":"INFO","msg":"request","client":"127.0.0.1:1","method":"GET","kind":"blob","status":206,"bytes":3,"size":78,"reference":"` + string(sumB) + `"}` + "\n" +
				`{"level":"INFO","msg":"stopped"}` + "\n{broken\n",
			want: []int64{552, 78}, skipped: 2,
		},
		"CSV": {
			log:  "digest,size\n# a comment\n\n" + string(sumA) + ",7\n" + string(sumB) + " , 9 , more, of it\n" + string(sumA) + ",7\nsha256:12,3\n" + string(sumB) + ",many\nnonsense\n",
			want: []int64{7, 9, 7}, skipped: 2, unknown: 2,
		},
		"ranges of one fetch": {
			log: ranged("45:18", "bytes=10 size=100 reference="+string(sumA)) + ranged("45:20", "bytes=10 size=100 reference="+string(sumA)) +
				ranged("45:21", "bytes=10 size=50 reference="+string(sumB)) + ranged("46:19", "bytes=10 size=100 reference="+string(sumA)) +
				ranged("58:00", "bytes=10 size=100 reference="+string(sumA)) +
				strings.Replace(ranged("58:00", "bytes=10 size=100 reference="+string(sumA)), "127.0.0.1", "127.0.0.2", 1),
			want: []int64{100, 50, 100, 100},
		},
		"one that broke off": {
			log:  text("method=GET kind=blob status=200 bytes=10 reference="+string(sumC)) + text("method=GET kind=blob status=200 bytes=90 reference="+string(sumC)),
			want: []int64{90, 90},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReader()
			if err := r.read(strings.NewReader(tc.log)); err != nil {
				t.Fatal(err)
			}
			if got := asked(r); !slices.Equal(got, tc.want) || r.skipped != tc.skipped || r.unknown != tc.unknown {
				t.Errorf("%v, %d skipped, %d unknown", got, r.skipped, r.unknown)
			}
		})
	}
}

// FuzzReadLog: any log gives a valid trace.
func FuzzReadLog(f *testing.F) {
	for _, s := range []string{
		"msg=request kind=blob method=GET status=200 bytes=7 reference=" + string(sumA), `msg="request" kind="blob" method=GET status=206 size=-1 bytes=1`,
		`{"msg":"request","kind":"blob","method":"GET","status":200,"bytes":9223372036854775807,"reference":"` + string(sumA) + `"}`, string(sumB) + ",7,", "=", `msg="`, "\x00,",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		r := newReader()
		if r.read(bytes.NewReader(log)) != nil {
			return // a line too long
		}
		for _, i := range r.requests {
			if o := r.objects[i]; o.digest.Validate() != nil || o.size < 0 {
				t.Errorf("%q gives %+v", log, o)
			}
		}
	})
}

// letters is a trace of objects of one block each, named by letters.
func letters(s string) *trace {
	t := &trace{}
	for _, l := range s {
		name := digest.FromString(string(l))
		i := slices.IndexFunc(t.objects, func(o object) bool { return o.digest == name })
		if i < 0 {
			i = len(t.objects)
			t.objects = append(t.objects, object{name, 1})
		}
		t.requests = append(t.requests, int32(i))
	}
	return t
}

func hitsOf(c contender, t *trace, capacity int64) string {
	p := c.make(t, capacity)
	out := ""
	for at := range t.requests {
		out += map[bool]string{true: "+", false: "."}[p.request(at)]
	}
	return out
}

// TestPolicies: on traces short enough to follow by hand.
func TestPolicies(t *testing.T) {
	for _, tc := range []struct{ policy, trace, want string }{
		{"FIFO", "abcabdabcd", "...++....."},
		{"LRU", "abcabdabc", "...++.++."},
		{"SIEVE", "abcadbabc", "...+..++."},
		{"Belady, who knows the future", "abcabdabcd", "...++.+++."},
	} {
		i := slices.IndexFunc(contenders(), func(c contender) bool { return c.name == tc.policy })
		if got := hitsOf(contenders()[i], letters(tc.trace), 3*4096); got != tc.want {
			t.Errorf("%s of %s: %s, want %s", tc.policy, tc.trace, got, tc.want)
		}
	}
}

// TestNobodyBeatsTheFuture: with objects of one size, no policy beats Belady's, and every
// policy holds a trace that fits.
func TestNobodyBeatsTheFuture(t *testing.T) {
	g := newGenerator(5000, 7)
	all := make([]int32, 200)
	for i := range all {
		all[i] = g.object(2 << 20)
	}
	popular := newZipf(len(all), 0.8)
	for !g.full() {
		g.request(all[popular.draw(g.Rand)])
	}
	hits := map[string]int{}
	for _, c := range contenders() {
		for capacity, name := range map[int64]string{40 * 2 << 20: c.name, 200 * 2 << 20: c.name + ", whole"} {
			hits[name] = strings.Count(hitsOf(c, g.trace, capacity), "+")
		}
		if n := hits[c.name+", whole"]; n != len(g.requests)-len(g.objects) {
			t.Errorf("%s misses what it could hold: %d hits of %d requests for %d objects", c.name, n, len(g.requests), len(g.objects))
		}
	}
	best := hits["Belady, who knows the future"]
	for _, c := range contenders() {
		if n := hits[c.name]; n > best || n < len(g.requests)/5 {
			t.Errorf("%s: %d hits, the best are %d", c.name, n, best)
		}
	}
}

// TestTooLarge: no policy holds an object that is larger than the cache.
func TestTooLarge(t *testing.T) {
	g := newGenerator(6, 1)
	huge, small := g.object(1<<20), g.object(1)
	for _, o := range []int32{huge, small, huge, small, huge, small} {
		g.request(o)
	}
	for _, c := range contenders() {
		if got := hitsOf(c, g.trace, 1<<19); got != "...+.+" {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// TestWorkloads: equal seeds make equal traces, other seeds others, and sizes are those of
// registries.
func TestWorkloads(t *testing.T) {
	for _, w := range workloads() {
		a, b, other := w.make(20_000, 1), w.make(20_000, 1), w.make(20_000, 2)
		if len(a.requests) != 20_000 || !slices.Equal(a.requests, b.requests) || !slices.Equal(a.objects, b.objects) {
			t.Errorf("%s: two traces of one seed differ", w.name)
		}
		if slices.Equal(a.requests, other.requests) {
			t.Errorf("%s: the seed means nothing", w.name)
		}
		for _, o := range a.requests {
			if size := a.objects[o].size; size < 1 || size > 1e9 {
				t.Fatalf("%s: an object of %d bytes", w.name, size)
			}
		}
	}
	g := newGenerator(0, 3)
	small, bytes, smallBytes := 0, int64(0), int64(0)
	for range 50_000 {
		n := g.objects[g.layer()].size
		bytes += n
		if n < 1e6 {
			small++
			smallBytes += n
		}
	}
	if share := float64(small) / 50_000; share < 0.64 || share > 0.66 {
		t.Errorf("%.3f of the layers are below 1 MB", share)
	}
	if share := float64(smallBytes) / float64(bytes); share < 0.003 || share > 0.006 {
		t.Errorf("layers below 1 MB are %.4f of the bytes", share)
	}
}

// TestSimulate: the command, with a log and with synthetic traces.
func TestSimulate(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log.csv")
	var csv strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&csv, "%s,%d\n", digest.FromString(fmt.Sprint(i*i%97)), 1000*(i*i%97)+1)
	}
	if err := os.WriteFile(log, []byte(csv.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := run(t.Context(), []string{"simulate", "-log", log, "-log", log, "-sizes", "10%,100%"}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2000 requests for 49 objects", "| policy | 10 % (", "| S3-FIFO + 2 % for small blobs: dray | ", " | 100.0 / 100.0 / 100.0 |\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := run(t.Context(), []string{"simulate", "-requests", "3000", "-seeds", "2"}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2+len(contenders()) || !strings.Contains(out.String(), "| irm 10 % |") {
		t.Errorf("%d lines\n%s", n, out.String())
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-log", empty}, {"-log", "/nowhere"}, {"-sizes", "0"}, {"-sizes", "5,x"}, {"-sizes", "NaN"}, {"-seeds", "0"}, {"x"}, {"-log", log, "-page", "y"}, {"-bogus"}} {
		if err := run(t.Context(), append([]string{"simulate"}, args...), &out, &errs); err == nil {
			t.Errorf("%q succeeds", args)
		}
	}
}

// TestEvictionPage: the page has the words and the rows of this program; its numbers take a minute
// to make.
func TestEvictionPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/eviction.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "|") {
			table.WriteString(line)
		}
	}
	for _, c := range contenders() {
		if !strings.Contains(table.String(), "\n| "+c.name+" | ") {
			t.Errorf("no row for %s", c.name)
		}
	}
	s, err := parseSimulation(nil, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(evictionPage, s.requests, s.seeds, table.String(), workloadList())
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("draybench simulate -page docs/eviction.md writes another page:\n%s", diff)
	}
}
