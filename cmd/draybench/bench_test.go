package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestQuick runs the whole program with small sizes: every scenario, every installed server,
// every table on the page. Nothing may be left behind.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	program, page, temp := filepath.Join(dir, "draybench"), filepath.Join(dir, "page.md"), filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-quick", "-out", page)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	missing := map[string]bool{nginx: strings.Contains(text, "\nnginx is left out"), distribution: strings.Contains(text, "\ndistribution v3.1.2 is left out")}
	for name, is := range missing {
		if is {
			t.Logf("NOT COVERED: %s is not on this machine, so nothing was compared with it; `make bench` fetches it", name)
		}
	}
	for _, table := range tables() {
		if !strings.Contains(text, "\n## "+table.title+"\n") {
			if slices.ContainsFunc(table.columns, func(server string) bool { return missing[server] }) {
				t.Logf("NOT COVERED: the table %q", table.title)
				continue
			}
			t.Errorf("there is no table %q", table.title)
		}
		if slices.Contains(table.scenarios, "fleet") && strings.Contains(text, "the fleet is left out") {
			t.Log("NOT COVERED: the fleet")
			continue
		}
		for _, m := range table.rows {
			checkRow(t, text, table, m, missing)
		}
	}
	for _, target := range targets() {
		measured := !strings.Contains(text, "| "+target.text+" | ") || !strings.Contains(lineWith(text, "| "+target.text+" |"), "not measured")
		if !measured && !missing[target.server] {
			t.Errorf("target %q was not measured", target.text)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "draybench") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

// checkRow wants a number for every server that could have one.
func checkRow(t *testing.T, text string, table table, m metric, missing map[string]bool) {
	t.Helper()
	line := lineWith(text, "| "+string(m)+" |")
	cells := strings.Split(strings.Trim(line, "|"), "|")
	if len(cells) != 2*len(table.columns) {
		t.Errorf("row %q is %q", m, line)
		return
	}
	for i, server := range table.columns {
		without := missing[server] || server == direct && m == unshapedCPU || server == bareNetHTTP && m == manifestQuestions || server == distribution && slices.Contains([]metric{crowdPeak, crowdBytes}, m)
		if value := strings.TrimSpace(cells[i+1]); (value == "–") != without {
			t.Errorf("%s, %s: %s", m, server, value)
		}
	}
}

func lineWith(text, prefix string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestMedianAndRatio(t *testing.T) {
	r := results{}
	for _, v := range []float64{3, 1, 2} {
		r.add(coldWall, dray, v)
	}
	for _, v := range []float64{4, 1, 2, 100} {
		r.add(coldWall, direct, v)
	}
	if got, ok := r.median(coldWall, dray); got != 2 || !ok {
		t.Errorf("median %v", got)
	}
	if got, ok := r.ratio(coldWall, dray, coldWall, direct); got != 2.0/3 || !ok {
		t.Errorf("ratio %v", got)
	}
	if _, ok := r.ratio(coldWall, dray, coldWall, nginx); ok {
		t.Error("a ratio to what was not measured")
	}
}

func TestVerdicts(t *testing.T) {
	r := results{}
	r.add(coldWall, dray, 1.03)
	r.add(coldWall, direct, 1)
	r.add(warmFew, dray, 9)
	r.add(warmFew, nginx, 10)
	r.add(unshapedCPU, dray, 0.6)
	for _, c := range []struct {
		target target
		want   [3]string
	}{
		{target{metric: coldWall, to: coldWall, server: direct, bound: 1.03}, [3]string{"≤ 1.03 ×", "1.03 ×", "reached"}},
		{target{metric: coldWall, to: coldWall, server: direct, bound: 1.02}, [3]string{"≤ 1.02 ×", "1.03 ×", "**missed**"}},
		{target{metric: warmFew, to: warmFew, server: nginx, atLeast: true, bound: 0.95}, [3]string{"≥ 0.95 ×", "0.9 ×", "**missed**"}},
		{target{metric: warmFew, to: warmFew, server: nginx, atLeast: true, bound: 0.9}, [3]string{"≥ 0.9 ×", "0.9 ×", "reached"}},
		{target{metric: warmFew, to: warmFew, server: distribution, atLeast: true, bound: 3}, [3]string{"≥ 3 ×", "–", "not measured"}},
		{target{metric: unshapedCPU, bound: 0.5}, [3]string{"≤ 0.5", "0.6", "**missed**"}},
	} {
		goal, got, word := c.target.verdict(r)
		if [3]string{goal, got, word} != c.want {
			t.Errorf("%q, %q, %q instead of %q", goal, got, word, c.want)
		}
	}
}

// A missed target is explained by other measurements, or not at all if they are missing.
func TestWhy(t *testing.T) {
	r := results{}
	explained := func() string {
		var w strings.Builder
		page{results: r}.why(&w)
		return w.String()
	}
	r.add(unshapedCPU, dray, 0.6)
	r.add(hashAlone, dray, 0.271)
	if got := explained(); got != "" {
		t.Errorf("half a reason: %s", got)
	}
	r.add(unshapedCPU, nginx, 0.39)
	if got := explained(); !strings.Contains(got, "0.271 s") || !strings.Contains(got, "0.390 s") {
		t.Errorf("explained by %q", got)
	}
	r[unshapedCPU][dray] = []float64{0.4}
	if got := explained(); got != "" {
		t.Errorf("a target that was reached is explained: %s", got)
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 100")
	if err != nil || got != (stat{parent: 7, ticks: 200}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{"", "42 (x)", "42 (x) S a b c d e f g h i j k l m n"} {
		if _, err := parseStat(s); err == nil {
			t.Errorf("%q was understood", s)
		}
	}
}

// A process is measured with its children, and stopped for good.
func TestProcess(t *testing.T) {
	p, err := startProcess(t.TempDir(), nil, "sh", "-c", "trap 'kill $!' TERM; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60 & wait")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for deadline := time.Now().Add(30 * time.Second); ; {
		pids, err := p.tree()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v instead of two", pids)
		}
	}
	if cpu, err := p.cpu(); err != nil || cpu < 10*time.Millisecond {
		t.Errorf("%s of CPU, %v", cpu, err)
	}
	if peak, err := p.peak(); err != nil || peak < 100<<10 {
		t.Errorf("%d bytes, %v", peak, err)
	}
	p.stop()
	if pids, err := p.tree(); err != nil || len(pids) != 1 {
		t.Errorf("after its end it has children: %v, %v", pids, err)
	}
}

// A process is measured although its children end at any moment.
func TestProcessWithEndedChildren(t *testing.T) {
	p, err := startProcess(t.TempDir(), nil, "sh", "-c", "true & exec sleep 60") // sleep waits for no child
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	zombie := 0
	for deadline := time.Now().Add(30 * time.Second); zombie == 0; {
		pids, err := p.tree()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 2 {
			if s, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[1])); err == nil && strings.Contains(string(s), ") Z ") {
				zombie = pids[1]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v instead of two, of which one has ended", pids)
		}
	}
	if peak, err := p.peak(); err != nil || peak < 100<<10 {
		t.Errorf("with a child that nobody waits for: %d bytes, %v", peak, err)
	}
	p.stop()
	ended := p.cmd.Process.Pid
	if cpu, err := cpuOf([]int{os.Getpid(), ended}); err != nil {
		t.Errorf("with a child that is gone: %s of CPU, %v", cpu, err)
	}
	if peak, err := peakOf([]int{os.Getpid(), ended}); err != nil || peak < 100<<10 {
		t.Errorf("with a child that is gone: %d bytes, %v", peak, err)
	}
	if peak, err := p.peak(); err == nil {
		t.Errorf("a process that is gone has a peak of %d bytes", peak)
	}
}

// A server that cannot be started says why, and leaves no process behind.
func TestStartFails(t *testing.T) {
	cause, argument := errors.New("disk full"), fmt.Sprint(1e6+os.Getpid())
	var listeners []net.Listener
	for _, test := range []struct {
		launch func(s site) ([][]string, error)
		want   error
	}{
		{func(site) ([][]string, error) { return [][]string{{argument}}, cause }, cause},
		{func(s site) ([][]string, error) { // ready, and then the bench ends
			for _, address := range []string{s.plain, s.secure} {
				l, err := net.Listen("tcp", address)
				if err != nil {
					return nil, err
				}
				listeners = append(listeners, l)
			}
			return [][]string{{argument}}, nil
		}, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b := &bench{dir: t.TempDir()}
		if r, err := b.start(ctx, peer{name: "sleeper", path: "sleep", launch: test.launch}, &origin{}); !errors.Is(err, test.want) || r != nil {
			t.Errorf("%+v, %v, want %v", r, err, test.want)
		}
		commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || len(commands) == 0 {
			t.Fatal(commands, err)
		}
		for _, c := range commands {
			if raw, _ := os.ReadFile(c); string(raw) == "sleep\x00"+argument+"\x00" { // other processes may end meanwhile
				t.Errorf("%s runs on", c)
			}
		}
	}
	for _, l := range listeners {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// An archive has its end: two empty blocks.
func TestFilesEnd(t *testing.T) {
	files, err := newFiles("seed", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(files, make([]byte, 1024)) || len(files)%512 != 0 {
		t.Errorf("%d bytes without an end", len(files))
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-only", "nothing"}, {"extra"}, {"-unknown"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
