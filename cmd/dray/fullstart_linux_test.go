package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/config"
	"dray/cmd/dray/reload"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// mounted is an empty file system of the test's own.
func mounted(t *testing.T, flags uintptr, options string) (path string) {
	path = t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", flags, options); err != nil {
		t.Skipf("only for those who may mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// A disk that has less than it must leave free is the reason that clients are told, and not the
// size of their layers. Pulls go on.
func TestPushOnADiskThatIsTooSmall(t *testing.T) {
	s := startStack(t, t.TempDir(), "min_free_bytes: 0", "min_free_bytes: 1024TiB")
	img := seed(t, s.ecr, "team/app", "v1", 1<<20)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
	at := s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	if text := s.checkError(s.do("PATCH", at, layerOf(1, 1000)), "PATCH", 503, "UNAVAILABLE"); !strings.Contains(text, "bytes free, cache.min_free_bytes keeps 1125899906842624 free") {
		t.Errorf("the client is told %q", text)
	}
}

// A dray that is restarted on a full file system starts, serves what it holds, passes the rest
// through, and keeps things again when there is room.
func TestStartOnAFullDisk(t *testing.T) {
	path := mounted(t, 0, "size=16m")
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	one, two := seed(t, ecr, "team/app", "v1", 1<<20), seed(t, ecr, "team/app", "v2", 2<<20)
	layer := func(s *stack, img seeded) []byte {
		return s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil).body
	}
	var first []byte
	t.Run("with room", func(t *testing.T) {
		s := startBefore(t, ecr, hub, path)
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
		first = layer(s, one)
	})
	fill := filepath.Join(path, "fill")
	if err := os.WriteFile(fill, make([]byte, 20<<20), 0o600); err == nil {
		t.Fatal("it is not full")
	}
	s := startBefore(t, ecr, hub, path)
	<-ecr.Idle()
	before := ecr.Count("blob-get")
	if !bytes.Equal(layer(s, one), first) || ecr.Count("blob-get") != before {
		t.Error("what is held is not served")
	}
	s.want(200, "GET", "/v2/team/app/manifests/v2", nil)
	if digest.FromBytes(layer(s, two)) != two.layer {
		t.Error("other bytes")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	layer(s, two)
	<-ecr.Idle()
	before = ecr.Count("blob-get")
	if layer(s, two); ecr.Count("blob-get") != before {
		t.Error("nothing is kept again")
	}
}

// A restart on a full file system loses no push that was acknowledged before it was forwarded:
// queued pushes are served and forwarded. Once there is room, dray acknowledges pushes itself
// again.
func TestStartOnAFullDiskWithPushesThatWait(t *testing.T) {
	path := mounted(t, 0, "size=16m")
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	one, two := layerOf(1, 100_000), layerOf(2, 1000)
	var m *oci.Manifest
	t.Run("with room", func(t *testing.T) {
		s := startBefore(t, ecr, hub, path, acknowledging...)
		s.outage()
		m = s.push("team/app", "v1", one)
		s.stop()
	})
	fill := filepath.Join(path, "fill")
	if err := os.WriteFile(fill, make([]byte, 20<<20), 0o600); err == nil {
		t.Fatal("it is not full")
	}
	var log bytes.Buffer
	s := startLogging(t, &log, ecr, hub, path, acknowledging...)
	if len(s.queue.List()) != 1 {
		t.Fatalf("the queue has %+v", s.queue.List())
	}
	if r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, m.Raw) {
		t.Errorf("got %s", r.body)
	}
	s.until(func() bool { // no part of a new journal stays; one may be there while dray tries again
		_, err := os.Stat(filepath.Join(path, "queue", "journal.new"))
		return errors.Is(err, os.ErrNotExist)
	})
	ecr.ClearFaults()
	s.forwarded()
	s.holds("team/app", "v1", m, one)
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { return s.queue.Check(t.Context()) == nil })
	s.outage()
	s.push("team/app", "v2", two)
	if len(s.queue.List()) != 1 {
		t.Errorf("the queue has %+v", s.queue.List())
	}
	s.stop()
	if text := log.String(); !strings.Contains(text, "cannot rewrite the journal of pushes") {
		t.Errorf("it does not say that the journal was left as it was:\n%s", text)
	}
}

// A directory that cannot be written at the start is taken for a wrong mount, and told of before
// clients meet it.
func TestStartOnAReadOnlyDisk(t *testing.T) {
	path := mounted(t, syscall.MS_RDONLY, "")
	g, err := build(t.Context(), config.Config{Cache: config.Cache{Directory: path}, State: config.State{Directory: path}}, reload.Source{}, slog.New(slog.DiscardHandler))
	if g != nil || !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v", err)
	}
}

// A file system without inodes is like one without room: dray starts, serves what it holds, and
// evicts blobs for the files of others. The facts file is opened as soon as that is possible.
func TestStartWithoutInodes(t *testing.T) {
	path := mounted(t, 0, "nr_inodes=400")
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	images := map[string]seeded{}
	for i := range 10 {
		tag := fmt.Sprint("v", i)
		images[tag] = seed(t, ecr, "team/app", tag, int64(i)<<17)
	}
	pull := func(s *stack, tag string) (source string) {
		s.want(200, "GET", "/v2/team/app/manifests/"+tag, nil)
		img := images[tag]
		r := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
		if digest.FromBytes(r.body) != img.layer {
			t.Errorf("%s: other bytes", tag)
		}
		return r.Header.Get("X-Cache")
	}
	t.Run("with inodes", func(t *testing.T) {
		s := startBefore(t, ecr, hub, path)
		for tag := range images {
			if tag != "v2" {
				pull(s, tag)
			}
		}
	})
	filled := 0
	for ; ; filled++ {
		if err := os.WriteFile(filepath.Join(path, fmt.Sprint("fill", filled)), nil, 0o600); err != nil {
			break
		}
	}
	var log bytes.Buffer
	s := startLogging(t, &log, ecr, hub, path)
	if err := s.store.Check(t.Context()); err == nil {
		t.Error("there is room for the marker of the facts file")
	}
	if from := pull(s, "v9"); from != "disk" {
		t.Errorf("what is held comes from %s", from)
	}
	pull(s, "v2")
	s.until(func() bool { return pull(s, "v2") == "disk" }) // something was evicted for it
	for i := range filled {
		if err := os.Remove(filepath.Join(path, fmt.Sprint("fill", i))); err != nil {
			t.Fatal(err)
		}
	}
	s.until(func() bool { return s.store.Check(t.Context()) == nil })
	s.stop()
	if text := log.String(); !strings.Contains(text, "the metadata file cannot be opened now") {
		t.Errorf("it does not say that facts are not kept:\n%s", text)
	}
}
