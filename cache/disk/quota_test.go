package disk

import (
	"bytes"
	"errors"
	"io"
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
)

func TestQuota(t *testing.T) {
	d := opened(t, Options{MaxBytes: 10 << 20})
	if _, err := store(d, random(5, 10<<20+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than all: %v", err)
	}
	first := random(6, 4<<20)
	dg := mustStore(t, d, first)
	release, err := d.Retain(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Retain(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
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
	free, total, err := d.statfs()
	if err != nil {
		t.Fatal(err)
	}
	// The disk is the reason, and not the blob, whose length may not be known yet.
	unknown, err := d.Create(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Abort()
	_, whenWritten := unknown.Write([]byte("x"))
	_, whenCreated := d.Create(t.Context(), 10)
	for _, err := range []error{whenWritten, whenCreated} {
		room, ok := errors.AsType[*RoomError](err)
		if !ok || !errors.Is(err, ErrFull) || room.MinFree != 1<<60 || room.Free <= 0 || room.Free > total {
			t.Errorf("a floor above the file system's size: %v", err)
		}
	}
	d.minFree = 0
	held := mustStore(t, d, random(12, 2<<20))
	d.minFree = free + 1<<30
	if _, err := store(d, random(13, 10)); !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
		t.Errorf("below the floor: %v", err)
	}
	if _, ok := d.Stat(held); !ok {
		t.Error("a blob had to go though that could not help")
	}
}

// TestQuotaHolds has many writers and readers, and watches the account meanwhile.
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
			// The account, because a walk through a changing directory would count some blobs twice.
			if sum := d.used + d.reserved - d.pending; sum > quota || d.pending < 0 {
				t.Errorf("%d bytes taken, quota %d, %d pending", sum, quota, d.pending)
			}
			if sum := d.used - d.droppedBytes() + d.reserved; sum > quota {
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
		if n := e.refs.Load(); n != 0 {
			t.Errorf("%d pins left", n)
		}
	}
	if s := d.Stats(); s.Bytes != held || s.Reserved != 0 || d.pending != 0 || len(d.busy) != 0 {
		t.Errorf("stats %+v, pending %d, %d names held; %d bytes in the index", s, d.pending, len(d.busy), held)
	}
}

// TestFullFileSystemEvicts has a file system that is full before the quota is used up. A large blob
// takes the room of large blobs, at whichever offset it finds out.
func TestFullFileSystemEvicts(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		for _, length := range []int64{2 << 20, -1} {
			var failing error
			d := opened(t, Options{})
			d.inject = func(op Op, name string) error {
				if op == OpWrite && d.Stats().Blobs > 1 {
					return failing
				}
				return nil
			}
			small := random(23, 10_000)
			mustStore(t, d, random(21, 2<<20))
			mustStore(t, d, small)
			in, err := d.Create(t.Context(), length)
			if err != nil {
				t.Fatal(err)
			}
			p := random(22, 2<<20)
			for _, part := range [][]byte{p[:900_000], p[900_000:]} {
				if _, err := in.Write(part); err != nil {
					t.Fatal(full, err)
				}
				failing = full
			}
			b, err := in.Commit(t.Context(), digest.FromBytes(p))
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			wantBlob(t, d, p)
			wantBlob(t, d, small)
			if s := d.Stats(); s.Blobs != 2 {
				t.Errorf("%v: stats %+v", full, s)
			}
		}
	}
}

// TestLowerQuota opens a directory that holds more than its new quota.
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

// TestOthersFillTheFileSystem has another program take the space that MinFreeBytes is to leave.
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

// There is room for a new blob as long as one can be evicted: not one that is open, pinned or
// needed by a push.
func TestCheckRoom(t *testing.T) {
	for name, use := range map[string]func(d *Dir, dg digest.Digest) (end func(), err error){
		"open": func(d *Dir, dg digest.Digest) (func(), error) {
			b, err := d.Open(t.Context(), dg)
			return func() { b.Close() }, err
		},
		"pinned": func(d *Dir, dg digest.Digest) (func(), error) {
			return func() { _, _ = d.RemovePin(t.Context(), "p") }, d.SetPin(t.Context(), "p", []digest.Digest{dg})
		},
		"needed by a push": func(d *Dir, dg digest.Digest) (func(), error) { return d.Retain(t.Context(), dg) },
	} {
		d := opened(t, Options{MaxBytes: 2 << 20})
		if err := d.CheckRoom(); err != nil {
			t.Errorf("%s, empty: %v", name, err)
		}
		dg := mustStore(t, d, random(1, 2<<20))
		if err := d.CheckRoom(); err != nil {
			t.Errorf("%s, full of what can go: %v", name, err)
		}
		end, err := use(d, dg)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.CheckRoom(); !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if end(); d.CheckRoom() != nil {
			t.Errorf("%s, afterwards: %v", name, d.CheckRoom())
		}
		wantBlob(t, d, random(1, 2<<20)) // asking evicts nothing
	}
}

// TestFailedEvictionKeepsOrder: an eviction that fails leaves proven blobs proven.
func TestFailedEvictionKeepsOrder(t *testing.T) {
	d := opened(t, Options{})
	for i := range 4 {
		mustStore(t, d, random(byte(24+i), smallBlob))
	}
	p := d.policy.large
	for range 2 {
		e, _ := p.fresh.take()
		p.main.put(e, 0)
	}
	order := func() (all []digest.Digest) {
		for _, q := range []*fifo{p.main, p.fresh} {
			for e := q.oldest(); e != &q.head; e = e.prev {
				all = append(all, e.digest())
			}
			all = append(all, "")
		}
		return all
	}
	before := order()
	if d.evict(5*smallBlob, smallBlob) {
		t.Fatal("it succeeds")
	}
	if after := order(); !slices.Equal(after, before) {
		t.Errorf("%q, before %q", after, before)
	}
}
