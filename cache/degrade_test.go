package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

const size = 1<<20 + 4321

var errDisk = errors.New("disk is broken")

// fault makes one operation of a disk fail, from the n-th call on, until it is mended.
type fault struct {
	op    disk.Op
	after int64
	err   error
	seen  atomic.Int64
	fixed atomic.Bool
}

func (f *fault) hit(op disk.Op, _ string) error {
	if op == f.op && !f.fixed.Load() && f.seen.Add(1) > f.after {
		return f.err
	}
	return nil
}

// counted returns the sum of a counter over all labels that contain label.
func counted(t *testing.T, c *cache.Cache, name, label string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c.Collectors()...)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if strings.Contains(m.String(), label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func open(t *testing.T, c *cache.Cache, o *cachetest.Origin) *cache.Reader {
	t.Helper()
	r, err := c.Open(t.Context(), cachetest.Blob(o.Data), o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func want(t *testing.T, r io.Reader, p []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, p) {
		t.Errorf("read %d bytes, equal %v, error %v; want %d bytes", len(got), bytes.Equal(got, p), err, len(p))
	}
}

func wantCalls(t *testing.T, o *cachetest.Origin, calls ...int64) {
	t.Helper()
	if d := cmp.Diff(calls, o.Calls(), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("calls of the origin (-want +got):\n%s", d)
	}
}

// bubble runs test in a bubble of testing/synctest, with a cache on a disk that has the options.
func bubble(t *testing.T, opts disk.Options, test func(t *testing.T, c *cache.Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{}, opts)
		test(t, c)
		synctest.Wait()
	})
}

// TestPullSurvivesDisk makes each operation of the disk fail, with one reader and with many.
func TestPullSurvivesDisk(t *testing.T) {
	for name, test := range map[string]struct {
		op     disk.Op
		after  int64
		err    error
		reason string
	}{
		"OpenFails":    {disk.OpOpen, 0, errDisk, "open"},
		"CreateFails":  {disk.OpCreate, 0, errDisk, "create"},
		"ReadOnly":     {disk.OpCreate, 0, syscall.EROFS, "create"},
		"Full":         {disk.OpCreate, 0, syscall.ENOSPC, "full"},
		"WriteFails":   {disk.OpWrite, 0, errDisk, "write"},
		"WriteFails2":  {disk.OpWrite, 2, errDisk, "write"},
		"FullOnTheWay": {disk.OpWrite, 2, syscall.ENOSPC, "full"},
		"CommitFails":  {disk.OpPublish, 0, errDisk, "commit"},
		"ReadFails":    {disk.OpRead, 0, errDisk, "read"},
		"ReadFails2":   {disk.OpRead, 3, errDisk, "read"},
	} {
		for _, readers := range []int{1, 8} {
			t.Run(name, func(t *testing.T) {
				f := &fault{op: test.op, after: test.after, err: test.err}
				bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
					if f.op == disk.OpOpen {
						f.fixed.Store(true)
						want(t, open(t, c, &cachetest.Origin{Data: cachetest.Random(1, size)}), cachetest.Random(1, size))
						synctest.Wait()
						f.fixed.Store(false)
					}
					survive(t, c, readers)
					if n := counted(t, c, "dray_cache_degraded_total", `"`+test.reason+`"`); n == 0 {
						t.Errorf("nothing counted for %q", test.reason)
					}
					if err := c.Check(); err == nil || !strings.Contains(err.Error(), test.err.Error()) {
						t.Errorf("the health is %v", err)
					}
					f.fixed.Store(true) // it recovers by itself
					o := &cachetest.Origin{Data: cachetest.Random(1, size)}
					want(t, open(t, c, o), o.Data)
					synctest.Wait()
					r := open(t, c, o)
					if r.Source() != cache.SourceDisk {
						t.Errorf("after recovery from %s", r.Source())
					}
					want(t, r, o.Data)
					time.Sleep(6 * time.Minute)
					if err := c.Check(); err != nil {
						t.Errorf("the health after recovery is %v", err)
					}
				})
			})
		}
	}
}

// survive checks that all readers of one blob that is not held get all of it.
func survive(t *testing.T, c *cache.Cache, readers int) {
	t.Helper()
	o := &cachetest.Origin{Data: cachetest.Random(1, size), Chunk: 100_000}
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() { want(t, open(t, c, o), o.Data) })
	}
	wg.Wait()
	if n := len(o.Calls()); n > 2*readers+1 {
		t.Errorf("%d calls of the origin for %d readers", n, readers)
	}
}

// TestFullDiskCostsNoSecondRequest checks that a reader takes over the answer that the flight got.
func TestFullDiskCostsNoSecondRequest(t *testing.T) {
	bubble(t, disk.Options{MaxBytes: 1 << 20}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(2, size)}
		r := open(t, c, o)
		if r.Source() != cache.SourceDirect || r.Size() != size {
			t.Errorf("source %s, size %d", r.Source(), r.Size())
		}
		want(t, r, o.Data)
		wantCalls(t, o, 0)
		if n := counted(t, c, "dray_cache_degraded_total", `"too large"`); n != 1 {
			t.Errorf("counted %v times", n)
		}
	})
}

// TestSpareIsDropped has the only caller leave before the origin answers with a blob for which the
// disk has no room.
func TestSpareIsDropped(t *testing.T) {
	bubble(t, disk.Options{MaxBytes: 1 << 20}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(2, size)}
		gate := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			synctest.Wait()
			cancel()
		}()
		if _, err := c.Open(ctx, cachetest.Blob(o.Data), cachetest.Gated(gate, o.Fetch)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(gate)
		synctest.Wait()
		wantCalls(t, o, 0)
		if n := o.Unclosed(); n != 0 {
			t.Errorf("%d bodies left open", n)
		}
	})
}

// TestDirectIsVerified asks bad origins while the disk does not work.
func TestDirectIsVerified(t *testing.T) {
	for name, test := range map[string]struct {
		faults []cachetest.Fault
		most   int
		err    error
	}{
		"Corrupt":   {[]cachetest.Fault{cachetest.Flip(size - 1)}, size - 1, cache.ErrCorrupt},
		"Overlong":  {[]cachetest.Fault{cachetest.Extend([]byte("x"))}, size - 1, cache.ErrSize},
		"ShortSize": {[]cachetest.Fault{cachetest.Announce(size - 9)}, size - 10, cache.ErrSize},
		"NoSize":    {[]cachetest.Fault{cachetest.Announce(-1), cachetest.Flip(size - 1)}, size - 1, cache.ErrCorrupt},
		"Truncated": {[]cachetest.Fault{cachetest.Cut(size-9, io.EOF)}, size - 9, io.ErrUnexpectedEOF},
		"Stalled":   {[]cachetest.Fault{cachetest.Stall(1000)}, 1000, cache.ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fault{op: disk.OpCreate, err: errDisk}
			bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
				o := &cachetest.Origin{Data: cachetest.Random(3, size), Plan: [][]cachetest.Fault{
					test.faults, test.faults, test.faults, test.faults, test.faults, test.faults,
				}}
				got, err := io.ReadAll(open(t, c, o))
				if !errors.Is(err, test.err) {
					t.Errorf("got %v, want %v", err, test.err)
				}
				if len(got) > test.most || !bytes.Equal(got, o.Data[:len(got)]) {
					t.Errorf("saw %d bytes, want at most %d, unchanged", len(got), test.most)
				}
				good := &cachetest.Origin{Data: o.Data, Plan: [][]cachetest.Fault{{cachetest.Cut(500, errDisk)}}}
				want(t, open(t, c, good), good.Data)
				wantCalls(t, good, 0, 500) // resumed
			})
		})
	}
}

// TestDirectRanges seeks in a blob that is passed through, and reads it byte by byte.
func TestDirectRanges(t *testing.T) {
	f := &fault{op: disk.OpCreate, err: errDisk}
	bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(4, 3000)}
		r := open(t, c, o)
		for _, from := range []int64{2000, 0, 2999, 3000, 1} {
			if _, err := r.Seek(from, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			want(t, onebyte{r}, o.Data[from:])
		}
		if _, err := r.Seek(3001, io.SeekStart); err == nil {
			t.Error("a seek behind the end succeeds")
		}
		wantCalls(t, o, 0, 2000, 0, 2999, 1)
	})
}

// onebyte reads a byte at a time.
type onebyte struct{ io.Reader }

func (r onebyte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

// TestFailOverKeepsVerifying breaks the disk under a reader that has read half of a corrupt blob.
func TestFailOverKeepsVerifying(t *testing.T) {
	for _, op := range []disk.Op{disk.OpWrite, disk.OpRead} {
		t.Run(string(op), func(t *testing.T) {
			f := &fault{op: op, err: errDisk}
			f.fixed.Store(true)
			bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
				gate := make(chan struct{})
				flip := cachetest.Flip(100)
				o := &cachetest.Origin{Data: cachetest.Random(5, size), Chunk: 50_000,
					Plan: [][]cachetest.Fault{{flip, cachetest.Hold(100_000, gate)}}}
				r := open(t, c, o)
				head := make([]byte, 100_000)
				if op == disk.OpRead {
					head = head[:50_000] // the flight is ahead, so there is something to read
				}
				if _, err := io.ReadFull(r, head); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				f.fixed.Store(false)
				calls := []int64{0, 100_000}
				if op == disk.OpRead { // what was given cannot be read again, so all is fetched again
					calls = []int64{0, 0}
					time.AfterFunc(time.Second, func() { close(gate) })
				} else {
					close(gate)
				}
				rest, err := io.ReadAll(r)
				if !errors.Is(err, cache.ErrCorrupt) || !bytes.Equal(rest, o.Data[len(head):size-1]) {
					t.Errorf("%d bytes, %v", len(rest), err)
				}
				wantCalls(t, o, calls...)
			})
		})
	}
}

// TestCorruptOnDisk truncates a marked blob behind the back of the cache.
func TestCorruptOnDisk(t *testing.T) {
	path := t.TempDir()
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(6, size)}
		want(t, open(t, c, o), o.Data)
		synctest.Wait()
		r := open(t, c, o)
		hex := cachetest.Blob(o.Data).Digest.Encoded()
		name := path + "/blobs/sha256/" + hex[:2] + "/" + hex
		if err := os.Truncate(name, 1000); err != nil {
			t.Fatal(err)
		}
		want(t, r, o.Data) // goes on with the origin
		wantCalls(t, o, 0, 1000)
		want(t, open(t, c, o), o.Data) // was dropped, is fetched again
		wantCalls(t, o, 0, 1000, 0)
	})
}

// TestUncleanStop tampers with an unmarked blob: it is never served.
func TestUncleanStop(t *testing.T) {
	path := t.TempDir()
	o := &cachetest.Origin{Data: cachetest.Random(7, size)}
	hex := cachetest.Blob(o.Data).Digest.Encoded()
	name := path + "/blobs/sha256/" + hex[:2] + "/" + hex
	t.Run("Fill", func(t *testing.T) {
		bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) { want(t, open(t, c, o), o.Data) })
	})
	bad := bytes.Clone(o.Data)
	bad[size/2] ^= 1
	if err := os.Chmod(name, 0o644); err != nil { // as a crash before the sync leaves it
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("Reopen", func(t *testing.T) {
		bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
			want(t, open(t, c, o), o.Data)
			wantCalls(t, o, 0, 0)
		})
	})
}

// TestTinyFileSystem fills a real file system of 4 MiB.
func TestTinyFileSystem(t *testing.T) {
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("only for those who may mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	}()
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		for i := range 8 { // eviction makes room
			o := &cachetest.Origin{Data: cachetest.Random(byte(10+i), size)}
			r := open(t, c, o)
			want(t, r, o.Data)
			synctest.Wait()
			r.Close() // what is open is not evicted
			if _, ok := c.Stat(cachetest.Blob(o.Data).Digest); !ok {
				t.Errorf("blob %d is not held", i)
			}
		}
		o := &cachetest.Origin{Data: cachetest.Random(20, 5<<20)}
		want(t, open(t, c, o), o.Data)
		wantCalls(t, o, 0)
		u, err := c.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if _, err := u.Write(o.Data); !errors.Is(err, cache.ErrFull) && !errors.Is(err, cache.ErrTooLarge) {
			t.Errorf("upload of more than the file system: %v", err)
		}
	})
}

// TestPullDoesNotWaitForTheList opens blobs while a slow disk is still being read after the start.
func TestPullDoesNotWaitForTheList(t *testing.T) {
	path := t.TempDir()
	held := &cachetest.Origin{Data: cachetest.Random(70, size)}
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) { want(t, open(t, c, held), held.Data) })
	slow := func(op disk.Op, _ string) error {
		if op == disk.OpList {
			time.Sleep(time.Minute) // in a bubble
		}
		return nil
	}
	bubble(t, disk.Options{Path: path, Fault: slow}, func(t *testing.T, c *cache.Cache) {
		begin := time.Now()
		want(t, open(t, c, held), held.Data)
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("a hit waits %v", waited)
		}
		o := &cachetest.Origin{Data: cachetest.Random(71, size)}
		r := open(t, c, o)
		want(t, r, o.Data)
		if waited := time.Since(begin); waited > 2*time.Second || r.Source() != cache.SourceDirect {
			t.Errorf("a miss waits %v, and comes from %s", waited, r.Source())
		}
		wantCalls(t, o, 0)
		time.Sleep(time.Minute)
		want(t, open(t, c, o), o.Data)
		synctest.Wait()
		if _, held := c.Stat(cachetest.Blob(o.Data).Digest); !held {
			t.Error("not held when the disk has been read")
		}
	})
}

// TestUnlistedBlobs: a blob is found although its directory could not be read after the start.
func TestUnlistedBlobs(t *testing.T) {
	path := t.TempDir()
	o := &cachetest.Origin{Data: cachetest.Random(72, size)}
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) { want(t, open(t, c, o), o.Data) })
	wantCalls(t, o, 0)
	unreadable := func(op disk.Op, _ string) error {
		if op == disk.OpList {
			return syscall.EMFILE
		}
		return nil
	}
	bubble(t, disk.Options{Path: path, Fault: unreadable}, func(t *testing.T, c *cache.Cache) {
		synctest.Wait() // the list has failed
		if _, held := c.Stat(cachetest.Blob(o.Data).Digest); !held {
			t.Error("not found without the list")
		}
		want(t, open(t, c, o), o.Data)
		wantCalls(t, o, 0)
	})
}

// TestBadIsCounted checks that bad content counts once for each fetch, however it was fetched and
// however many readers it had.
func TestBadIsCounted(t *testing.T) {
	for name, fault := range map[string]cachetest.Fault{
		"Corrupt": cachetest.Flip(size / 2), "Overlong": cachetest.Extend([]byte("x")), "Shorter": cachetest.Announce(size - 7),
	} {
		for _, parts := range []bool{false, true} {
			if parts && name != "Corrupt" {
				continue // parts end where they were asked to
			}
			t.Run(fmt.Sprint(name, parts), func(t *testing.T) {
				bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
					o := &cachetest.Origin{Data: cachetest.Random(72, size), Pace: 1 << 20, At: func(int64, int64, int) []cachetest.Fault { return []cachetest.Fault{fault} }}
					b := cachetest.Blob(o.Data)
					if parts {
						b = split(o, cache.NewSlots(streams))
					}
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() {
							r := openSplit(t, c, o, b)
							if got, err := io.ReadAll(r); err == nil || len(got) >= size {
								t.Errorf("read %d bytes, %v", len(got), err)
							}
						})
					}
					wg.Wait()
					synctest.Wait()
					if n := counted(t, c, "dray_cache_corrupt_total", "origin"); n != 1 {
						t.Errorf("%v counted", n)
					}
				})
			})
		}
	}
}

// TestFollowDegraded has nobody but a follower wait for a blob that the disk cannot store. The
// follower does not read it from the origin.
func TestFollowDegraded(t *testing.T) {
	f := &fault{op: disk.OpCreate, err: errDisk}
	bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(4, 3000)}
		blob, gate := cachetest.Blob(o.Data), make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := c.Open(ctx, blob, func(ctx context.Context, from int64) (cache.Stream, error) {
				<-gate
				return o.Fetch(ctx, from)
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the client got %v", err)
			}
		})
		synctest.Wait()
		callers.Go(func() {
			r, err := c.Follow(t.Context(), blob.Digest)
			if !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("the follower got %v", err)
			}
			if err == nil {
				r.Close()
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(gate)
		callers.Wait()
		synctest.Wait()
		if n := o.Unclosed(); n != 0 {
			t.Errorf("%d answers of the origin are open", n)
		}
	})
}
