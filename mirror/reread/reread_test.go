package reread

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/fixture"
)

var errOdd = errors.New("the files are of different lengths")

// pair makes a value of two files that must be of one length.
func pair(texts [][]byte) (string, error) {
	if len(texts[0]) != len(texts[1]) {
		return "", errOdd
	}
	return string(texts[0]) + " " + string(texts[1]), nil
}

// Each change of one of the files is seen at the next call, and one that cannot be used is told of
// once, with the time since when that is so.
func TestGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		fixture.Replace(t, a, "1")
		fixture.Replace(t, b, "2")
		var log bytes.Buffer
		v, err := New(slog.New(slog.NewTextHandler(&log, nil)), pair, a, b)
		if err != nil {
			t.Fatal(err)
		}
		var broken time.Time
		for _, step := range []struct {
			name   string
			change func()
			want   string
			fails  string
			told   int // how often the log has warned until now
		}{
			{name: "at first", change: func() {}, want: "1 2"},
			{name: "the second file alone", change: func() { fixture.Replace(t, b, "3") }, want: "1 3"},
			{name: "the same file, longer", change: func() {
				if err := errors.Join(os.WriteFile(a, []byte("11"), 0o600), os.WriteFile(b, []byte("33"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}, want: "11 33"},
			{name: "half of a change", change: func() { fixture.Replace(t, a, "4"); broken = time.Now() }, want: "11 33", fails: errOdd.Error(), told: 1},
			{name: "still half", change: func() { time.Sleep(time.Hour) }, want: "11 33", fails: errOdd.Error(), told: 1},
			{name: "missing", change: func() {
				if err := os.Remove(b); err != nil {
					t.Fatal(err)
				}
			}, want: "11 33", fails: "no such file", told: 2},
			{name: "whole", change: func() { fixture.Replace(t, b, "5") }, want: "4 5", told: 2},
			{name: "half again", change: func() { fixture.Replace(t, b, ""); broken = time.Now() }, want: "4 5", fails: errOdd.Error(), told: 3},
		} {
			step.change()
			for range 2 {
				got, failure := v.Get()
				if got != step.want || (failure != nil) != (step.fails != "") {
					t.Errorf("%s: %q, %v", step.name, got, failure)
				}
				if failure != nil && (!strings.Contains(failure.Err.Error(), step.fails) || !failure.Since.Equal(broken)) {
					t.Errorf("%s: %v since %s, want %s since %s", step.name, failure.Err, failure.Since, step.fails, broken)
				}
			}
			if n := strings.Count(log.String(), "level=WARN"); n != step.told {
				t.Errorf("%s: %d warnings, want %d:\n%s", step.name, n, step.told, log.String())
			}
		}
		if n := strings.Count(log.String(), "level=INFO"); n != 3 {
			t.Errorf("%d changes were told, want 3:\n%s", n, log.String())
		}
	})
}

// TestPipe: a pipe, from which nobody could read, is refused at the start and later.
func TestPipe(t *testing.T) {
	pipe, path := filepath.Join(t.TempDir(), "pipe"), filepath.Join(t.TempDir(), "a")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(nil, pair, pipe, pipe); err == nil || !strings.Contains(err.Error(), pipe+": is a pipe") {
		t.Errorf("at the start: %v", err)
	}
	fixture.Replace(t, path, "1")
	v, err := New(nil, pair, path, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(pipe, path); err != nil {
		t.Fatal(err)
	}
	if got, failure := v.Get(); got != "1 1" || failure == nil || !strings.Contains(failure.Err.Error(), "is a pipe") {
		t.Errorf("later: %q, %v", got, failure)
	}
}

// A file that cannot be used at the start is an error that names it.
func TestNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if _, err := New(nil, pair, path, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	fixture.Replace(t, path, "1")
	if _, err := New(nil, pair, path, os.DevNull); !errors.Is(err, errOdd) || !strings.Contains(err.Error(), path) {
		t.Errorf("files that do not match: %v", err)
	}
}

// Many who ask while the file changes end with the last value.
func TestConcurrentGet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	fixture.Replace(t, path, "0")
	v, err := New(nil, pair, path, path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				if got, _ := v.Get(); got == "" {
					t.Error("no value")
				}
			}
		})
	}
	for _, text := range []string{"1", "2", "3"} {
		fixture.Replace(t, path, text)
	}
	all.Wait()
	if got, failure := v.Get(); got != "3 3" || failure != nil {
		t.Errorf("%q, %v", got, failure)
	}
}
