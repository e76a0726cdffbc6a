package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"dray/cache/meta/bolt"
	"dray/cache/meta/metatest"
)

// childPath makes the test binary a writer that waits to be killed.
const childPath = "DRAY_TEST_BOLT_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		os.Exit(child(path))
	}
	goleak.VerifyTestMain(m)
}

func child(path string) int {
	s, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for i := range 1000 {
		if err := s.Put(context.Background(), fmt.Sprintf("k/%d", i), []byte("v"), 0); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println("written")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends us
	return 0
}

func mustOpen(t *testing.T, o bolt.Options) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill makes a file of many pages and closes it.
func fill(t *testing.T, path string) {
	t.Helper()
	s := mustOpen(t, bolt.Options{Path: path})
	for i := range 2000 {
		metatest.Put(t, s, fmt.Sprintf("k/%05d", i), strings.Repeat("v", 300), 0)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	fill(t, path)
	if exists(path + ".open") {
		t.Error("the marker of use outlived Close")
	}
	s := mustOpen(t, bolt.Options{Path: path})
	if !exists(path + ".open") {
		t.Error("no marker of use")
	}
	metatest.Want(t, s, "k/00007", strings.Repeat("v", 300))
	if n := len(metatest.Listing(t, s, "k/")); n != 2000 {
		t.Errorf("%d entries", n)
	}
	if testutil.ToFloat64(s.Collectors()[1]) < 2000*300 {
		t.Error("the size of the file is wrong")
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	s := mustOpen(t, bolt.Options{Path: path})
	metatest.Put(t, s, "k", "v", 0)
	if _, err := bolt.Open(bolt.Options{Path: path, LockTimeout: time.Millisecond}); !errors.Is(err, bolt.ErrLocked) {
		t.Fatalf("got %v", err)
	}
	metatest.Want(t, s, "k", "v")
	if exists(path + ".corrupt") {
		t.Error("a file in use was moved aside")
	}
}

// TestKilled shows that a kill of the process loses nothing.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childPath+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("written"))
	_, readErr := io.ReadFull(stdout, line)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if readErr != nil || string(line) != "written" {
		t.Fatalf("child said %q, %v", line, readErr)
	}
	if !exists(path + ".open") {
		t.Error("the kill left no marker, so that nothing would be checked")
	}
	s := mustOpen(t, bolt.Options{Path: path})
	if n := len(metatest.Listing(t, s, "k/")); n != 1000 {
		t.Errorf("%d entries of 1000 survived", n)
	}
	if exists(path + ".corrupt") {
		t.Error("a sound file was moved aside")
	}
}

// TestDamaged opens files as a power cut may leave them.
func TestDamaged(t *testing.T) {
	overwrite := func(t *testing.T, path string, at int64, with []byte) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(with, at); err != nil {
			t.Fatal(err)
		}
	}
	page := int64(os.Getpagesize())
	for name, damage := range map[string]func(t *testing.T, path string){
		"not a database": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("garbage ", 5000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"one byte": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"zeros": func(t *testing.T, path string) {
			if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"both headers":      func(t *testing.T, path string) { overwrite(t, path, 0, make([]byte, 2*page)) },
		"shortened":         func(t *testing.T, path string) { shorten(t, path, 40*page) },
		"one page":          func(t *testing.T, path string) { shorten(t, path, page) },
		"less than 2 pages": func(t *testing.T, path string) { shorten(t, path, 2*page-1) },
		"a page and a bit":  func(t *testing.T, path string) { shorten(t, path, page+1) },
		"headers only":      func(t *testing.T, path string) { shorten(t, path, 2*page) },
		"pages of zeros": func(t *testing.T, path string) {
			overwrite(t, path, 20*page, make([]byte, 60*page))
		},
		"pages of noise": func(t *testing.T, path string) {
			noise := make([]byte, 100*page)
			random := rand.New(rand.NewPCG(1, 2))
			for i := range noise {
				noise[i] = byte(random.Uint32())
			}
			overwrite(t, path, 20*page, noise)
		},
		"page twice": func(t *testing.T, path string) {
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, 30*page, whole[50*page:51*page])
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "facts.db")
			fill(t, path)
			damage(t, path)
			if err := os.WriteFile(path+".open", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := mustOpen(t, bolt.Options{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if !exists(path+".corrupt") || !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("not moved aside; log: %s", log.String())
			}
			if n := len(metatest.Listing(t, s, "")); n != 0 {
				t.Errorf("the new file holds %d entries", n)
			}
			metatest.Put(t, s, "k", "v", 0)
			metatest.Want(t, s, "k", "v")
		})
	}
}

func shorten(t *testing.T, path string, to int64) {
	if err := os.Truncate(path, to); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedWhileRunning cuts the end off the file of a running store. It checks that operations
// fail, but that the process does not end.
func TestDamagedWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	fill(t, path)
	s := mustOpen(t, bolt.Options{Path: path})
	shorten(t, path, int64(2*os.Getpagesize()))
	_, err := s.Get(t.Context(), "k/00500")
	if !errors.Is(err, bolt.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	for range 3 { // nobody waits for a lock that is never let go
		if err := s.Put(t.Context(), "k/00500", []byte("v"), 0); !errors.Is(err, bolt.ErrCorrupt) {
			t.Errorf("put: %v", err)
		}
	}
	for _, err := range s.Scan(t.Context(), "") {
		if !errors.Is(err, bolt.ErrCorrupt) {
			t.Errorf("scan: %v", err)
		}
	}
	if err := s.Close(); !errors.Is(err, bolt.ErrCorrupt) {
		t.Errorf("close: %v", err)
	}
	if !exists(path + ".open") {
		t.Error("nothing would check the file at the next start")
	}
}

// TestDamagedUnderWriters has many writers at the moment when damage is found.
func TestDamagedUnderWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	fill(t, path)
	s := mustOpen(t, bolt.Options{Path: path})
	shorten(t, path, int64(2*os.Getpagesize()))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := s.Put(t.Context(), fmt.Sprintf("k/%05d", i*90), []byte("v"), 0); !errors.Is(err, bolt.ErrCorrupt) {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); !errors.Is(err, bolt.ErrCorrupt) {
		t.Errorf("close: %v", err)
	}
}

// TestNotMovedAside checks that the file is not moved aside for errors other than damage.
func TestNotMovedAside(t *testing.T) {
	dir := t.TempDir()
	if _, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "none", "facts.db")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	if _, err := bolt.Open(bolt.Options{Path: dir}); err == nil {
		t.Error("a directory was opened")
	}
	if exists(dir + ".corrupt") {
		t.Error("a directory was moved aside")
	}
}

func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, bolt.Options{Path: filepath.Join(t.TempDir(), "facts.db")})
		defer s.Close()
		for i := range 1000 {
			metatest.Put(t, s, fmt.Sprintf("soon/%d", i), "v", 30*time.Second)
			metatest.Put(t, s, fmt.Sprintf("late/%d", i), "v", 2*time.Hour)
		}
		metatest.Put(t, s, "forever", "v", 0)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n := testutil.ToFloat64(s.Collectors()[0]); n != 1000 {
			t.Errorf("%v entries swept, want 1000", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := testutil.ToFloat64(s.Collectors()[0]); n != 2000 {
			t.Errorf("%v entries swept, want 2000", n)
		}
		metatest.Want(t, s, "forever", "v")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSweepSparesRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, bolt.Options{Path: filepath.Join(t.TempDir(), "facts.db")})
		defer s.Close()
		metatest.Put(t, s, "k", "old", time.Second)
		metatest.Put(t, s, "gone", "old", time.Second)
		time.Sleep(2 * time.Second)
		metatest.Put(t, s, "k", "new", time.Minute)
		if n, err := s.DeleteExpired(t.Context()); n != 1 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
		metatest.Want(t, s, "k", "new")
	})
}
