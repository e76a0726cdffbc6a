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
	"slices"
	"sync"
	"syscall"
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

// wantBlob reads a blob and compares.
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
	if _, ok := d.Pin(dg); ok {
		t.Error("pin finds a missing blob")
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

func TestGrowingIngest(t *testing.T) {
	d := opened(t, Options{})
	p := random(2, 5<<20)
	for _, dg := range []digest.Digest{digest.FromBytes(p), digest.SHA512.FromBytes(p)} {
		in, err := d.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		for chunk := range slices.Chunk(p, 700_000) {
			at := in.Size()
			if n, err := in.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
			got := make([]byte, len(chunk))
			if _, err := in.ReadAt(got, at); err != nil || !bytes.Equal(got, chunk) {
				t.Fatalf("read while it grows: %v", err)
			}
			wantMissing(t, d, dg)
		}
		if s := d.Stats(); s.Reserved < int64(len(p)) {
			t.Errorf("%d bytes reserved for %d written", s.Reserved, len(p))
		}
		b, err := in.Commit(t.Context(), dg)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Abort(); err != nil {
			t.Errorf("abort after commit: %v", err)
		}
		if _, err := b.ReadAt(make([]byte, 10), 5); err != nil {
			t.Errorf("read after abort: %v", err)
		}
		b.Close()
		if _, ok := d.Stat(dg); !ok {
			t.Errorf("%s is missing", dg)
		}
	}
	if s := d.Stats(); s.Reserved != 0 || d.pending != 0 {
		t.Errorf("stats %+v, pending %d", s, d.pending)
	}
}

func TestDoor(t *testing.T) {
	d := opened(t, Options{})
	p := random(3, 10_000)
	good := digest.FromBytes(p)
	for name, test := range map[string]struct {
		size  int64
		write []byte
		name  digest.Digest
		err   error
	}{
		"Corrupt":     {10_000, append([]byte{p[0] ^ 1}, p[1:]...), good, ErrCorrupt},
		"CorruptLong": {-1, append(slices.Clone(p), 'x'), good, ErrCorrupt},
		"Short":       {10_000, p[:9999], digest.FromBytes(p[:9999]), ErrSize},
		"Overlong":    {9_999, p, good, ErrSize},
		"Name":        {10_000, p, "sha256:no", ErrDigest},
		"Other512":    {10_000, p, digest.SHA512.FromString("x"), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := d.Create(t.Context(), test.size)
			if err != nil {
				t.Fatal(err)
			}
			_, err = in.Write(test.write)
			if err == nil {
				_, err = in.Commit(t.Context(), test.name)
			}
			if !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			for range 2 {
				if err := in.Abort(); err != nil {
					t.Errorf("abort: %v", err)
				}
			}
			if _, err := in.Commit(t.Context(), good); err == nil {
				t.Error("commit after abort succeeds")
			}
			wantMissing(t, d, good)
			sum, unfinished := onDisk(t, d.opts.Path)
			if s := d.Stats(); sum != 0 || unfinished != 0 || s.Bytes != 0 || s.Reserved != 0 {
				t.Errorf("%d bytes in %d unfinished files left, stats %+v", sum, unfinished, s)
			}
		})
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

func TestQuota(t *testing.T) {
	d := opened(t, Options{MaxBytes: 10 << 20})
	if _, err := store(d, random(5, 10<<20+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than all: %v", err)
	}
	first := random(6, 4<<20)
	dg := mustStore(t, d, first)
	release, ok := d.Pin(dg)
	if !ok {
		t.Fatal("cannot pin")
	}
	other, _ := d.Pin(dg)
	second := mustStore(t, d, random(7, 4<<20))
	third := mustStore(t, d, random(8, 4<<20))
	wantMissing(t, d, second)
	wantBlob(t, d, first)
	open, err := d.Open(t.Context(), third)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store(d, random(9, 4<<20)); !errors.Is(err, ErrFull) || errors.Is(err, ErrTooLarge) {
		t.Errorf("all in use: %v", err)
	}
	if s := d.Stats(); s.Blobs != 2 || s.Reserved != 0 {
		t.Errorf("a refused reservation has changed something: %+v", s)
	}
	release()
	release() // counts once
	if _, err := store(d, random(9, 4<<20)); !errors.Is(err, ErrFull) {
		t.Errorf("all in use still: %v", err)
	}
	other()
	mustStore(t, d, random(9, 4<<20))
	wantMissing(t, d, dg)
	open.Close()
	if got := counted(t, d, "dray_disk_evicted_total"); got != 2 {
		t.Errorf("%v evictions counted", got)
	}
}

func TestUnknownSizeWithinQuota(t *testing.T) {
	d := opened(t, Options{MaxBytes: 3 << 20})
	in, err := d.Create(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort()
	p := random(10, 4<<20)
	if _, err := in.Write(p[:3<<20]); err != nil {
		t.Fatalf("exactly the quota: %v", err)
	}
	if n, err := in.Write(p[3<<20:]); n != 0 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("beyond the quota: %d, %v", n, err)
	}
	b, err := in.Commit(t.Context(), digest.FromBytes(p[:3<<20]))
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestFloor(t *testing.T) {
	d := opened(t, Options{MinFreeBytes: 1 << 60})
	if _, err := store(d, random(11, 10)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a floor above the file system's size: %v", err)
	}
	free, _, err := d.statfs()
	if err != nil {
		t.Fatal(err)
	}
	d.opts.MinFreeBytes = 0
	held := mustStore(t, d, random(12, 2<<20))
	d.opts.MinFreeBytes = free + 1<<30
	if _, err := store(d, random(13, 10)); !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
		t.Errorf("below the floor: %v", err)
	}
	if _, ok := d.Stat(held); !ok {
		t.Error("a blob had to go though that could not help")
	}
}

// TestQuotaHolds has many writers and readers, and a watcher of the account.
func TestQuotaHolds(t *testing.T) {
	const quota = 12 << 20
	d := opened(t, Options{MaxBytes: quota})
	halt := running(t, d)
	stop := make(chan struct{})
	var watch, wg sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			d.mu.RLock()
			// What has blocks now; a walk through a directory that changes would count some twice.
			if sum := d.used + d.reserved - d.pending; sum > quota || d.pending < 0 {
				t.Errorf("%d bytes taken, quota %d, %d pending", sum, quota, d.pending)
			}
			if sum := d.used - d.leaving() + d.reserved; sum > quota {
				t.Errorf("%d bytes promised, quota %d", sum, quota)
			}
			d.mu.RUnlock()
		}
	})
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 7))
			for range 40 {
				p := random(byte(rnd.IntN(20)), 1+rnd.IntN(3<<20))
				dg, err := store(d, p)
				if err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				b, err := d.Open(t.Context(), dg)
				if errors.Is(err, ErrNotFound) {
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || !bytes.Equal(got, p) {
					t.Errorf("%s read while others evict: %v", dg, err)
				}
				b.Close()
			}
		})
	}
	wg.Wait()
	close(stop)
	watch.Wait()
	halt()
	if sum, unfinished := onDisk(t, d.opts.Path); sum != d.used || unfinished != 0 {
		t.Errorf("%d bytes on disk in the end, %d in the account, %d unfinished files", sum, d.used, unfinished)
	}
	var held int64
	for e := range d.index.all() {
		held += e.blocks()
		if n := e.pins.Load(); n != 0 {
			t.Errorf("%d pins left", n)
		}
	}
	if s := d.Stats(); s.Bytes != held || s.Reserved != 0 || d.pending != 0 || len(d.busy) != 0 {
		t.Errorf("stats %+v, pending %d, %d names held; %d bytes in the index", s, d.pending, len(d.busy), held)
	}
}

func TestSameDigestAtOnce(t *testing.T) {
	d := opened(t, Options{MaxBytes: 64 << 20})
	p := random(14, 2<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := store(d, p); err != nil {
					t.Error(err)
				}
				if err := d.Delete(t.Context(), digest.FromBytes(p)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustStore(t, d, p)
	wantBlob(t, d, p)
	if s := d.Stats(); s.Blobs != 1 || s.Bytes != 2<<20 || s.Reserved != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTouch checks that the order of last use outlives the process, at the cost of one write an hour.
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
	<-d.scanDone
	wantBlob(t, d, p) // verified first, as nobody has marked it
	if time.Since(mtime()) > time.Minute {
		t.Error("use not recorded")
	}
}

func TestVanishedFile(t *testing.T) {
	d := opened(t, Options{})
	p, q := random(16, 5000), random(17, 5000)
	dg, other := mustStore(t, d, p), mustStore(t, d, q)
	if err := os.Remove(file(t, d, dg)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file(t, d, other), 100); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, d, dg)
	wantMissing(t, d, other)
	if s := d.Stats(); s.Bytes != 0 || s.Blobs != 0 {
		t.Errorf("stats %+v", s)
	}
	mustStore(t, d, p)
	if err := os.Remove(file(t, d, dg)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, d, p) // is not taken for held
	wantBlob(t, d, p)
	if err := os.RemoveAll(filepath.Dir(file(t, d, dg))); err != nil { // the whole shard
		t.Fatal(err)
	}
	wantMissing(t, d, dg)
	mustStore(t, d, p)
	wantBlob(t, d, p)
}

func TestFaults(t *testing.T) {
	broken := errors.New("disk is broken")
	for _, test := range []struct {
		op   Op
		err  error
		want error
	}{
		{OpCreate, broken, broken}, {OpWrite, broken, broken}, {OpPublish, broken, broken},
		{OpCreate, syscall.ENOSPC, ErrFull}, {OpWrite, syscall.ENOSPC, ErrFull}, {OpWrite, syscall.EDQUOT, ErrFull},
	} {
		t.Run(string(test.op)+"/"+test.err.Error(), func(t *testing.T) {
			failing := test.op
			d := opened(t, Options{Fault: func(op Op, _ string) error {
				if op == failing {
					return test.err
				}
				return nil
			}})
			p := random(18, 10_000)
			if _, err := store(d, p); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			sum, unfinished := onDisk(t, d.opts.Path)
			if s := d.Stats(); sum != 0 || unfinished != 0 || s.Bytes != 0 || s.Reserved != 0 || d.pending != 0 {
				t.Errorf("%d bytes, %d unfinished, pending %d, stats %+v", sum, unfinished, d.pending, s)
			}
			failing = ""
			mustStore(t, d, p)
			wantBlob(t, d, p)
		})
	}
}

// TestUnlinkFails has a file system that does not let go: the quota still holds.
func TestUnlinkFails(t *testing.T) {
	fail := true
	d := opened(t, Options{MaxBytes: 4 << 20, Fault: func(op Op, _ string) error {
		if op == OpUnlink && fail {
			return fs.ErrPermission
		}
		return nil
	}})
	p, q := random(19, 3<<20), random(20, 3<<20)
	mustStore(t, d, p)
	if _, err := store(d, q); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	wantBlob(t, d, p)
	if err := d.Delete(t.Context(), digest.FromBytes(p)); err == nil {
		t.Error("delete succeeds")
	}
	fail = false
	mustStore(t, d, q)
	wantBlob(t, d, q)
	if s := d.Stats(); s.Bytes != 3<<20 || s.Blobs != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestAbortFails keeps in the account what cannot be removed.
func TestAbortFails(t *testing.T) {
	d := opened(t, Options{Fault: func(op Op, _ string) error {
		if op == OpUnlink {
			return fs.ErrPermission
		}
		return nil
	}})
	in, err := d.Create(t.Context(), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(random(25, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := in.Abort(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if sum, _ := onDisk(t, d.opts.Path); sum != blockSize || d.Stats().Reserved != 0 {
		t.Errorf("%d bytes on disk, %+v", sum, d.Stats())
	}
}

// TestFullFileSystemEvicts lets the file system be full while the quota is not.
func TestFullFileSystemEvicts(t *testing.T) {
	full := false
	d := opened(t, Options{})
	d.opts.Fault = func(op Op, name string) error {
		if op == OpWrite && full && d.Stats().Blobs > 0 {
			return syscall.ENOSPC
		}
		return nil
	}
	mustStore(t, d, random(21, 2<<20))
	full = true
	p := random(22, 1<<20)
	mustStore(t, d, p)
	wantBlob(t, d, p)
	if s := d.Stats(); s.Blobs != 1 {
		t.Errorf("stats %+v", s)
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
		if s := d.Stats(); s.Blobs != 1 || d.scanning.Load() {
			t.Errorf("stats %+v, scanned %v", s, d.scanning.Load())
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

// TestLowerQuota opens a directory that holds more than it may now.
func TestLowerQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Options{})
		for i := range 8 {
			mustStore(t, d, random(byte(60+i), 1<<20))
		}
		d.Close()
		d = opened(t, Options{Path: d.opts.Path, MaxBytes: 5 << 20})
		running(t, d)
		synctest.Wait()
		if s := d.Stats(); s.Bytes != 5<<20 || s.Blobs != 5 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestOthersFillTheFileSystem has a stranger take what the floor is to leave free.
func TestOthersFillTheFileSystem(t *testing.T) {
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("only for those who may mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Options{Path: path, MinFreeBytes: 4 << 20})
		running(t, d)
		for i := range 20 {
			mustStore(t, d, random(byte(70+i), 1<<20))
			if free, _, err := d.statfs(); err != nil || free < 4<<20 {
				t.Fatalf("%d bytes free after blob %d, %v", free, i, err)
			}
		}
		before := d.Stats().Blobs
		if before < 10 {
			t.Errorf("%d blobs held in 12 MiB", before)
		}
		if err := os.WriteFile(filepath.Join(path, "stranger"), make([]byte, 3<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(boundsEvery)
		synctest.Wait()
		if free, _, err := d.statfs(); err != nil || free < 4<<20 {
			t.Errorf("%d bytes free, %v", free, err)
		}
		if n := d.Stats().Blobs; n < before-4 || n >= before {
			t.Errorf("%d blobs left of %d", n, before)
		}
	})
}

func TestStrangersAreLeftAlone(t *testing.T) {
	d := opened(t, Options{})
	mustStore(t, d, random(24, 10))
	d.Close()
	for _, name := range []string{"blobs/sha256/ab/readme", "blobs/stray", "blobs/md5/ab/ab", "ingest/17", "ingest/deep/er"} {
		path := filepath.Join(d.opts.Path, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d = opened(t, d.opts)
	running(t, d)
	<-d.scanDone
	if s := d.Stats(); s.Blobs != 1 {
		t.Errorf("stats %+v", s)
	}
	if _, err := os.Stat(filepath.Join(d.opts.Path, "blobs/sha256/ab/readme")); err != nil {
		t.Errorf("a stranger in blobs: %v", err)
	}
	if _, unfinished := onDisk(t, d.opts.Path); unfinished != 0 {
		t.Errorf("%d unfinished files survived", unfinished)
	}
}

// TestWriteAt fills blobs out of order: nothing is published before every byte is there and hashed.
func TestWriteAt(t *testing.T) {
	d, err := Open(Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := random(1, 300_000)
	dg := digest.FromBytes(p)
	in, err := d.Create(t.Context(), int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort()
	for _, bad := range []int64{-1, int64(len(p)) - 9} {
		if _, err := in.WriteAt(p[:10], bad); !errors.Is(err, ErrSize) {
			t.Errorf("write at %d: %v", bad, err)
		}
	}
	if _, err := in.WriteAt(p[100_000:], 100_000); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context(), dg); !errors.Is(err, ErrSize) {
		t.Errorf("commit with a gap: %v", err)
	}
	if _, err := in.WriteAt(p[:100_000], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context(), dg); !errors.Is(err, ErrSize) {
		t.Errorf("commit before it is hashed: %v", err)
	}
	if _, held := d.Stat(dg); held {
		t.Error("published")
	}
	for _, to := range []int64{1, 99_999, int64(len(p))} {
		if err := in.Advance(to, make([]byte, 4096)); err != nil || in.Size() != to {
			t.Errorf("advance to %d: at %d, %v", to, in.Size(), err)
		}
	}
	b, err := in.Commit(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, len(p))
	if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("read: %v", err)
	}
}
