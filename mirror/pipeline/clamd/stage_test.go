package clamd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dray/mirror/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manners configure the daemon of the tests.
type manners struct {
	most   int           // StreamMaxLength
	silent bool          // never answers
	say    string        // instead of an answer
	seen   chan<- string // gets each file
}

// daemon implements clamd(8). It finds "EVIL" and nothing else.
func daemon(t *testing.T, how manners) string {
	t.Helper()
	address := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			how.serve(c)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return "unix:" + address
}

func (how manners) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	if hello, _ := in.ReadString(0); hello != "zIDSESSION\x00" {
		return
	}
	for n := 1; ; n++ {
		if command, _ := in.ReadString(0); command != "zINSTREAM\x00" {
			return
		}
		var file bytes.Buffer
		for {
			var length uint32
			if binary.Read(in, binary.BigEndian, &length) != nil {
				return
			}
			if length == 0 {
				break
			}
			if how.most > 0 && file.Len()+int(length) > how.most {
				fmt.Fprintf(c, "%d: INSTREAM size limit exceeded. ERROR\x00", n)
				return
			}
			if _, err := io.CopyN(&file, in, int64(length)); err != nil {
				return
			}
		}
		if how.seen != nil {
			how.seen <- file.String()
		}
		switch {
		case how.silent:
			_, _ = io.Copy(io.Discard, in)
			return
		case how.say != "":
			fmt.Fprint(c, how.say)
		case strings.Contains(file.String(), "EVIL"):
			fmt.Fprintf(c, "%d: stream: Test.Evil-1 FOUND\x00", n)
		default:
			fmt.Fprintf(c, "%d: stream: OK\x00", n)
		}
	}
}

type file struct {
	name, content string
}

// look walks files as a pipeline does.
func look(t *testing.T, c Config, files ...file) (pipeline.LayerResult, error) {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Open(t.Context(), pipeline.Layer{})
	if err != nil {
		return pipeline.LayerResult{}, err
	}
	err = func() error {
		for _, f := range files {
			e := &pipeline.Entry{Path: f.name, Type: '0', Size: int64(len(f.content))}
			if f.name == "" {
				e.Size, e.Whole = -1, true
			}
			wanted, err := v.Begin(e)
			if err != nil || !wanted {
				if err != nil {
					return err
				}
				continue
			}
			for p := range bytesOf(f.content, 7000) {
				if err := v.Data(p); err != nil {
					return err
				}
			}
			if err := v.End(); err != nil {
				return err
			}
		}
		return nil
	}()
	r, cerr := v.Close(err == nil)
	return r, errors.Join(err, cerr)
}

func bytesOf(s string, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(s) > 0 && yield([]byte(s[:min(n, len(s))])) {
			s = s[min(n, len(s)):]
		}
	}
}

func TestFilesAreLookedAtOneByOne(t *testing.T) {
	seen := make(chan string, 10)
	long := strings.Repeat("x", 300_000)
	r, err := look(t, Config{Address: daemon(t, manners{seen: seen})}, file{"bin/good", "fine"}, file{"bin/empty", ""}, file{"bin/bad", "so EVIL"}, file{"usr/long", long})
	if err != nil {
		t.Fatal(err)
	}
	close(seen)
	var got []string
	for s := range seen {
		got = append(got, s)
	}
	if len(got) != 3 || got[0] != "fine" || got[1] != "so EVIL" || got[2] != long {
		t.Errorf("clamd saw %d files: %.60q", len(got), got)
	}
	if len(r.Findings) != 1 || r.Findings[0].Rule != RuleMalware || r.Findings[0].Where.Path != "bin/bad" || !strings.Contains(r.Findings[0].What, "Test.Evil-1") {
		t.Errorf("findings %+v", r.Findings)
	}
}

func TestWhatIsNotLookedAtIsAFinding(t *testing.T) {
	r, err := look(t, Config{Address: daemon(t, manners{}), MaxFileBytes: 10}, file{"big", strings.Repeat("x", 11)}, file{"small", "x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 || r.Findings[0].Rule != RuleUnscanned || r.Findings[0].Where.Path != "big" {
		t.Errorf("findings %+v", r.Findings)
	}
}

// Of a layer that is no archive, as much is scanned as of a file.
func TestLayersThatAreNoArchives(t *testing.T) {
	for _, tc := range []struct {
		content, seen, want string
	}{
		{"so EVIL", "so EVIL", RuleMalware},
		{strings.Repeat("x", 9000), strings.Repeat("x", 9000), ""},
		{strings.Repeat("x", 9001), strings.Repeat("x", 9000), RuleUnscanned},
		{strings.Repeat("x", 30_000), strings.Repeat("x", 9000), RuleUnscanned},
		{"EVIL" + strings.Repeat("x", 9000), "EVIL" + strings.Repeat("x", 8996), RuleUnscanned + " " + RuleMalware},
	} {
		seen := make(chan string, 1)
		r, err := look(t, Config{Address: daemon(t, manners{seen: seen}), MaxFileBytes: 9000}, file{"", tc.content})
		if err != nil {
			t.Fatal(err)
		}
		var rules []string
		for _, f := range r.Findings {
			rules = append(rules, f.Rule)
			if strings.Contains(f.Fix, "path") { // there is none to waive it by
				t.Errorf("%d bytes: the advice is to %s", len(tc.content), f.Fix)
			}
		}
		if got := strings.Join(rules, " "); got != tc.want || <-seen != tc.seen {
			t.Errorf("%d bytes: %q, want %q", len(tc.content), got, tc.want)
		}
	}
}

func TestNoAnswerIsNoConsent(t *testing.T) {
	for name, c := range map[string]struct {
		how  manners
		want string
	}{
		"its own limit":   {manners{most: 100}, "set max_file to a lower value"},
		"an error":        {manners{say: "1: something else ERROR\x00"}, "unexpected answer"},
		"nonsense":        {manners{say: strings.Repeat("y", 2*maxReply)}, "clamd"},
		"half an answer":  {manners{say: "1: stre"}, "clamd"},
		"an empty answer": {manners{say: "\x00"}, "unexpected answer"},
		"silence":         {manners{silent: true}, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := look(t, Config{Address: daemon(t, c.how), Timeout: 100 * time.Millisecond}, file{"f", strings.Repeat("x", 200_000)})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(r.Findings) > 0 {
				t.Errorf("%+v, %v; want an error with %q", r, err, c.want)
			}
		})
	}
	if _, err := look(t, Config{Address: "unix:/nowhere/clamd.ctl"}); err == nil {
		t.Error("no daemon, no error")
	}
}

// The end of ctx ends a session at every step, although each step sets a deadline of its own.
func TestEndOfContextStays(t *testing.T) {
	for name, step := range map[string]func(*session) error{
		"send": func(s *session) error { return s.send(make([]byte, 1<<20)) },
		"end":  func(s *session) error { _, err := s.end(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			_, address, _ := strings.Cut(daemon(t, manners{silent: true}), ":")
			s, err := dial(ctx, "unix", address, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.begin(); err != nil {
				t.Fatal(err)
			}
			given := errors.New("the push was given up")
			cancel(given)
			_, _ = s.conn.Read(make([]byte, 1)) // until the deadline is set
			start := time.Now()
			if err := step(s); !errors.Is(err, given) || time.Since(start) > 10*time.Second {
				t.Errorf("%v after %s", err, time.Since(start))
			}
			_ = s.close()
		})
	}
}

func TestNewSignaturesLookAnew(t *testing.T) {
	s, err := New(Config{Address: "tcp:127.0.0.1:3310", Rescan: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_800_000_000, 0).Truncate(time.Hour)
	at := func(d time.Duration) string {
		s.now = func() time.Time { return start.Add(d) }
		return s.Revision()
	}
	if at(0) != at(59*time.Minute) || at(0) == at(61*time.Minute) {
		t.Error("the revision does not follow the clock")
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "/run/clamd", "unix:", "http://localhost"} {
		if _, err := New(Config{Address: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
