package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(fillerEnv) != "" {
		os.Exit(filler())
	}
	goleak.VerifyTestMain(m)
}

func random(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, byte(n), byte(n >> 8)}).Read(p) // never fails
	return p
}

// opened opens a directory and closes it when the test ends.
func opened(t *testing.T, opts Options) *Dir {
	t.Helper()
	if opts.Path == "" {
		opts.Path = t.TempDir()
	}
	d, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// running runs the background work of a directory until stop or the end of the test.
func running(t *testing.T, d *Dir) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// store puts p into the directory.
func store(d *Dir, p []byte) (digest.Digest, error) {
	dg := digest.FromBytes(p)
	in, err := d.Create(context.Background(), int64(len(p)))
	if err != nil {
		return dg, err
	}
	defer in.Abort()
	if _, err := in.Write(p); err != nil {
		return dg, err
	}
	b, err := in.Commit(context.Background(), dg)
	if err != nil {
		return dg, err
	}
	return dg, b.Close()
}

func mustStore(t *testing.T, d *Dir, p []byte) digest.Digest {
	t.Helper()
	dg, err := store(d, p)
	if err != nil {
		t.Fatal(err)
	}
	return dg
}

// wantBlob reads a blob and compares it with p.
func wantBlob(t *testing.T, d *Dir, p []byte) {
	t.Helper()
	b, err := d.Open(t.Context(), digest.FromBytes(p))
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || !bytes.Equal(got, p) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(p))
	}
}

func wantMissing(t *testing.T, d *Dir, dg digest.Digest) {
	t.Helper()
	if _, err := d.Open(t.Context(), dg); !errors.Is(err, ErrNotFound) {
		t.Errorf("open: %v, want %v", err, ErrNotFound)
	}
	if _, ok := d.Stat(dg); ok {
		t.Error("stat finds a missing blob")
	}
	if _, err := d.Retain(t.Context(), dg); !errors.Is(err, ErrNotFound) {
		t.Errorf("keep: %v, want %v", err, ErrNotFound)
	}
}

// file returns the path of a blob in the file system.
func file(t *testing.T, d *Dir, dg digest.Digest) string {
	t.Helper()
	name, err := blobPath(dg)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(d.opts.Path, name)
}

// counted returns the value of a counter.
func counted(t *testing.T, d *Dir, name string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(d.Collectors()...)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// onDisk returns the blocks of all files, as the account counts them, and how many are unfinished.
func onDisk(t *testing.T, path string) (sum int64, unfinished int) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // unlinked meanwhile
		}
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil // unlinked meanwhile
		}
		sum += blocks(info.Size())
		if filepath.Base(filepath.Dir(p)) == "ingest" {
			unfinished++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum, unfinished
}

func TestStoreAndOpen(t *testing.T) {
	d := opened(t, Options{})
	for _, n := range []int{0, 1, 4095, 4096, 4097, 3 << 20} {
		p := random(1, n)
		wantMissing(t, d, digest.FromBytes(p))
		dg := mustStore(t, d, p)
		wantBlob(t, d, p)
		if got, ok := d.Stat(dg); !ok || got != int64(n) {
			t.Errorf("stat: %d, %v", got, ok)
		}
		mustStore(t, d, p) // again is success
	}
	if s := d.Stats(); s.Blobs != 6 || s.Reserved != 0 || s.Bytes != 4*4096+8192+3<<20 {
		t.Errorf("stats %+v", s)
	}
	if _, unfinished := onDisk(t, d.opts.Path); unfinished != 0 {
		t.Errorf("%d unfinished files", unfinished)
	}
}

func TestLocked(t *testing.T) {
	d := opened(t, Options{})
	if _, err := Open(d.opts); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	d.Close()
	opened(t, d.opts)
}

func TestDelete(t *testing.T) {
	d := opened(t, Options{})
	p := random(4, 5000)
	dg := mustStore(t, d, p)
	b, err := d.Open(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), dg); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, d, dg)
	if _, err := b.ReadAt(make([]byte, 10), 0); err != nil {
		t.Errorf("a reader lost its blob: %v", err)
	}
	if s := d.Stats(); s.Bytes != 8192 {
		t.Errorf("the bytes a reader holds are not accounted for: %+v", s)
	}
	b.Close()
	b.Close()
	if s := d.Stats(); s.Bytes != 0 {
		t.Errorf("stats %+v", s)
	}
	if err := d.Delete(t.Context(), dg); err != nil {
		t.Errorf("delete again: %v", err)
	}
	mustStore(t, d, p)
	wantBlob(t, d, p)
}

// TestTouch checks that the order of last use outlives the process, with at most one write an hour
// for each blob.
func TestTouch(t *testing.T) {
	d := opened(t, Options{})
	p := random(15, 10)
	dg := mustStore(t, d, p)
	name := file(t, d, dg)
	mtime := func() time.Time {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	fresh := mtime()
	wantBlob(t, d, p)
	if !mtime().Equal(fresh) {
		t.Error("a second use within the hour was written to disk")
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(name, long, long); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = opened(t, d.opts)
	running(t, d)
	<-d.contents.scan.done
	wantBlob(t, d, p) // verified first, as nobody has marked it
	if time.Since(mtime()) > time.Minute {
		t.Error("use not recorded")
	}
}

func TestScanWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Options{})
		stop := running(t, d)
		p := random(23, 100)
		mustStore(t, d, p)
		stop()
		d.Close()
		d = opened(t, d.opts)
		wantBlob(t, d, p) // found by stat: nobody has read the directory
		if s := d.Stats(); s.Blobs != 1 || d.contents.scan.begun.Load() {
			t.Errorf("stats %+v, scanned %v", s, d.contents.scan.begun.Load())
		}
		wantMissing(t, d, digest.FromString("none"))
		running(t, d)
		synctest.Wait()
		if s := d.Stats(); s.Blobs != 1 || s.Bytes != 4096 || s.Unverified != 0 {
			t.Errorf("after the scan: %+v", s)
		}
		wantBlob(t, d, p)
	})
}

func TestRestartKeepsOrder(t *testing.T) {
	d := opened(t, Options{MaxBytes: 64 << 20})
	var all []digest.Digest
	for i := range 8 {
		dg := mustStore(t, d, random(byte(30+i), 2<<20))
		at := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := os.Chtimes(file(t, d, dg), at, at); err != nil {
			t.Fatal(err)
		}
		all = append(all, dg)
	}
	d.Close()
	d = opened(t, Options{Path: d.opts.Path, MaxBytes: 16 << 20})
	mustStore(t, d, random(40, 6<<20))
	for i, dg := range all {
		if _, err := d.Open(t.Context(), dg); (err == nil) != (i >= 3) {
			t.Errorf("blob %d of 8, the oldest being 0: %v", i, err)
		}
	}
}
