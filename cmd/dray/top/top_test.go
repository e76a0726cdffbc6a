package top_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/top"
	"dray/mirror/admin/api"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares a text with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.Local)

func entry(id uint64, client, user, repository, reference string, rate int64) api.LiveEntry {
	e := api.LiveEntry{ID: id, Client: client, User: user, Upstream: "docker.io", Repository: repository, Reference: reference, State: api.LiveActive, Rate: rate, Last: noon}
	if rate == 0 {
		e.State, e.Last = api.LiveIdle, noon.Add(-7*time.Second)
	}
	return e
}

func state() api.Live {
	failing := entry(4, "10.0.0.9", "eve\x1b[2J\n", "team/app", "sha256:"+strings.Repeat("ab", 32), 0)
	failing.Failures, failing.Error, failing.RequestID = 2, "upstream answered 503\x1b]0;title\x07", "id-1"
	late := entry(5, "", "", "team/lazy", "", 1200)
	return api.Live{
		At: noon,
		Pulls: []api.LivePull{
			{LiveEntry: entry(1, "10.0.0.7", "", "library/alpine", "3.20", 0), Layers: api.LiveLayers{Of: 3}, Bytes: 900, Sources: map[string]int64{"cache": 900}},
			{LiveEntry: entry(2, "10.0.0.7", "ann", "library/postgres", "17", 85_300_000), Layers: api.LiveLayers{Asked: 9, Of: 14}, Bytes: 431_000_000,
				Sources: map[string]int64{"origin": 300_000_000, "disk": 130_000_000, "cache": 1_000_000}},
			{LiveEntry: failing, Layers: api.LiveLayers{Asked: 1, Of: 2}, Bytes: 12, Sources: map[string]int64{"flight": 10, "direct": 2}},
			{LiveEntry: late, Layers: api.LiveLayers{Asked: 7}, Sources: map[string]int64{}},
		},
		Pushes: []api.LivePush{
			{LiveEntry: entry(3, "fd00::1", "ci", "team/app", "v1", 2_000_000), Blobs: 4, Received: 52_000_000, Forwarded: 40_000_000, Checks: api.LiveChecksRunning},
		},
		Displaced: 3,
	}
}

// TestScreen draws the screen: wide, narrow and low, and with nothing to show.
func TestScreen(t *testing.T) {
	for file, c := range map[string]struct {
		live          api.Live
		width, height int
	}{
		"wide.golden":   {state(), 140, 40},
		"narrow.golden": {state(), 60, 40},
		"low.golden":    {state(), 140, 6},
		"empty.golden":  {api.Live{At: noon}, 80, 24},
	} {
		frame := top.Frame(c.live, c.width, c.height)
		golden(t, file, strings.Join(frame, "\n")+"\n")
		if len(frame) > c.height {
			t.Errorf("%s: %d lines", file, len(frame))
		}
		for _, line := range frame {
			if n := len([]rune(line)); n > c.width {
				t.Errorf("%s: a line of %d characters: %s", file, n, line)
			}
		}
	}
	for width := range 4 {
		for height := range 4 {
			if n := len(top.Frame(state(), width, height)); n > height {
				t.Errorf("%d × %d: %d lines", width, height, n)
			}
		}
	}
}

// Nothing that strangers wrote changes the terminal, and at the end it is as before.
func TestControlSequences(t *testing.T) {
	var out bytes.Buffer
	s := top.Screen{Out: &out, Size: func() (int, int) { return 140, 40 }}
	s.Enter()
	s.Show(state())
	s.Leave()
	golden(t, "sequences.golden", strings.ReplaceAll(out.String(), "\x1b", "ESC"))
	if strings.Contains(out.String(), "\x07") || strings.Contains(out.String(), "]0;title\x07") {
		t.Error("a control character of a stranger")
	}
}

// TestTable prints what dray top --once prints.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	top.Table(&out, state())
	golden(t, "table.golden", out.String())
}

// Lines are printed when something begins or ends, and every 5 seconds while something changes.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	l := top.Lines{Out: &out}
	pull := api.LivePull{LiveEntry: entry(1, "10.0.0.7", "ann", "library/alpine", "3.20", 1000), Layers: api.LiveLayers{Of: 3}}
	for second := range 14 {
		now := api.Live{At: noon.Add(time.Duration(second) * time.Second)}
		pull.Bytes = 1000 * int64(min(second, 7))
		if second > 7 {
			pull.State, pull.Rate = api.LiveIdle, 0
		}
		if second < 13 {
			now.Pulls = []api.LivePull{pull}
		}
		if second == 2 {
			now.Pushes = state().Pushes
		}
		if err := l.Show(now); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "lines.golden", out.String())
}
