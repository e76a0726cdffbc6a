package cache_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

const (
	piece   = 64 << 10
	streams = 4
	pieces  = size/piece + 1
)

var errOrigin = errors.New("origin says no")

// split names the blob of an origin that is fetched in parts.
func split(o *cachetest.Origin, slots *cache.Slots) cache.Blob {
	b := cachetest.Blob(o.Data)
	b.Split = &cache.Split{Threshold: 4 * piece, Piece: piece, Streams: streams, Slots: slots, Part: o.Part, First: o.Part}
	return b
}

func openSplit(t *testing.T, c *cache.Cache, o *cachetest.Origin, b cache.Blob) *cache.Reader {
	t.Helper()
	r, err := c.Open(t.Context(), b, o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// parts returns the requests for a blob in pieces: one for each piece.
func parts() (all []cachetest.Call) {
	for at := int64(0); at < size; at += piece {
		all = append(all, cachetest.Call{From: at, To: min(at+piece, size)})
	}
	return all
}

// wantRequests compares the requests of an origin, whatever their order.
func wantRequests(t *testing.T, o *cachetest.Origin, want []cachetest.Call) {
	t.Helper()
	got := o.Requests()
	slices.SortFunc(got, func(a, b cachetest.Call) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
}

// wantFree fails the test if not all slots are free again.
func wantFree(t *testing.T, slots *cache.Slots, n int) {
	t.Helper()
	if free := slots.Free(); free != n {
		t.Errorf("%d of %d slots are free", free, n)
	}
}

// TestSplitRequests has a blob fetched by exactly one request for each piece for one reader. For
// many that begin anywhere, every byte is asked for once.
func TestSplitRequests(t *testing.T) {
	for _, readers := range []int{1, 32} {
		t.Run(fmt.Sprint(readers), func(t *testing.T) {
			slots := cache.NewSlots(16)
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				o := &cachetest.Origin{Data: cachetest.Random(1, size), Chunk: 10_000, Pace: 1 << 20}
				var wg sync.WaitGroup
				for i := range readers {
					wg.Go(func() {
						r := openSplit(t, c, o, split(o, slots))
						from := i * 30_000
						if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
							t.Error(err)
						}
						want(t, r, o.Data[from:])
					})
				}
				wg.Wait()
				synctest.Wait()
				most := streams
				if readers == 1 {
					wantRequests(t, o, parts())
				} else {
					wantOnce(t, o, 8*pieces)
					most = mostStreams
				}
				want(t, openSplit(t, c, o, split(o, slots)), o.Data)
				if o.Most() > most || o.Most() < streams || o.Unclosed() != 0 {
					t.Errorf("%d bodies open at once, %d in the end", o.Most(), o.Unclosed())
				}
				wantFree(t, slots, 16)
			})
		})
	}
}

// TestSplitOff has blobs fetched by one request from byte 0, as if there were no parts.
func TestSplitOff(t *testing.T) {
	for name, test := range map[string]struct {
		data  int
		slots int
		edit  func(*cache.Split)
		want  []cachetest.Call
	}{
		"BelowThreshold": {4*piece - 1, 16, func(*cache.Split) {}, []cachetest.Call{{From: 0, To: -1}}},
		"OneStream":      {size, 16, func(s *cache.Split) { s.Streams = 1 }, []cachetest.Call{{From: 0, To: -1}}},
		"NoSlots":        {size, 0, func(*cache.Split) {}, []cachetest.Call{{From: 0, To: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			slots := cache.NewSlots(test.slots)
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				o := &cachetest.Origin{Data: cachetest.Random(2, test.data)}
				b := split(o, slots)
				test.edit(b.Split)
				want(t, openSplit(t, c, o, b), o.Data)
				wantRequests(t, o, test.want)
				synctest.Wait()
				wantFree(t, slots, test.slots)
			})
		})
	}
}

// TestSplitUnknownSize asks for the whole first when nobody has told the size.
func TestSplitUnknownSize(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(3, size), Chunk: 10_000, Pace: 1 << 20}
		b := split(o, cache.NewSlots(16))
		b.Size = -1
		want(t, openSplit(t, c, o, b), o.Data)
		all := parts()
		all[0].To = -1
		wantRequests(t, o, all)
	})
}

// TestSplitSurvives has parts misbehave in every way that a fetch survives, and checks that readers
// get every byte. rest is the offset of the one request for all missing bytes; 0: there was none.
func TestSplitSurvives(t *testing.T) {
	part := func(faults ...cachetest.Fault) func(from, to int64, n int) []cachetest.Fault {
		return func(from, to int64, n int) []cachetest.Fault {
			if from >= 2*piece && to >= 0 {
				return faults
			}
			return nil
		}
	}
	once := func(from int64, faults ...cachetest.Fault) func(from, to int64, n int) []cachetest.Fault {
		return func(f, _ int64, n int) []cachetest.Fault {
			if f == from && n == 0 {
				return faults
			}
			return nil
		}
	}
	const mid = 5*piece + 1000
	for name, test := range map[string]struct {
		at     func(from, to int64, n int) []cachetest.Fault
		whole  bool // one request for the rest is among those made
		resume bool // one request from mid on is
	}{
		"PartsRefused":  {at: part(cachetest.Refuse(errOrigin)), whole: true},
		"RangesIgnored": {at: part(cachetest.Whole()), whole: true},
		"OtherSize":     {at: part(cachetest.Announce(size + 1)), whole: true},
		"PartsStall":    {at: part(cachetest.Stall(7*piece + 10)), whole: true},
		"NoSize":        {at: part(cachetest.Announce(-1))},
		"OneRefused":    {at: once(5*piece, cachetest.Refuse(errOrigin))},
		"OneCut":        {at: once(5*piece, cachetest.Cut(mid, io.ErrUnexpectedEOF)), resume: true},
		"OneShort":      {at: once(5*piece, cachetest.Cut(mid, io.EOF)), resume: true},
		"OneStalled":    {at: once(5*piece, cachetest.Stall(mid)), resume: true},
		"FirstCut":      {at: once(0, cachetest.Cut(1000, errOrigin))},
	} {
		for _, readers := range []int{1, 8} {
			t.Run(fmt.Sprint(name, readers), func(t *testing.T) {
				slots := cache.NewSlots(16)
				bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
					o := &cachetest.Origin{Data: cachetest.Random(4, size), Chunk: 10_000, Pace: 1 << 20, At: test.at}
					var wg sync.WaitGroup
					for range readers {
						wg.Go(func() { want(t, openSplit(t, c, o, split(o, slots)), o.Data) })
					}
					wg.Wait()
					synctest.Wait()
					var whole, resumed bool
					for _, q := range o.Requests() {
						whole = whole || q.To < 0 && q.From >= piece
						resumed = resumed || q.From == mid
					}
					if whole != test.whole || resumed != test.resume {
						t.Errorf("requests %v", o.Requests())
					}
					if _, held := c.Stat(cachetest.Blob(o.Data).Digest); !held || o.Unclosed() != 0 {
						t.Errorf("held %v, %d bodies open", held, o.Unclosed())
					}
					wantFree(t, slots, 16)
				})
			})
		}
	}
}

// TestSplitAllRefused refuses each additional stream once, and checks that one request then asks
// for all the rest.
func TestSplitAllRefused(t *testing.T) {
	for _, readers := range []int{1, 16} {
		slots := cache.NewSlots(16)
		bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
			o := &cachetest.Origin{Data: cachetest.Random(4, size), Chunk: 10_000, Pace: 1 << 20, At: func(_, to int64, n int) []cachetest.Fault {
				if to > piece {
					return []cachetest.Fault{cachetest.Refuse(errOrigin)}
				}
				return nil
			}}
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() { want(t, openSplit(t, c, o, split(o, slots)), o.Data) })
			}
			wg.Wait()
			got := o.Requests()
			if len(got) != 1+(streams-1)+1 || got[0] != parts()[0] || got[streams] != (cachetest.Call{From: piece, To: -1}) {
				t.Errorf("requests %v", got)
			}
			wantFree(t, slots, 16)
			if n := counted(t, c, "dray_cache_refused_parts_total", ""); n != streams-1 {
				t.Errorf("%v refusals counted", n)
			}
		})
	}
}

// TestSplitFirstIgnoresRange goes on with the one stream when the origin sends the whole blob.
func TestSplitFirstIgnoresRange(t *testing.T) {
	slots := cache.NewSlots(16)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(5, size), Plan: [][]cachetest.Fault{{cachetest.Whole()}}}
		want(t, openSplit(t, c, o, split(o, slots)), o.Data)
		wantRequests(t, o, []cachetest.Call{{From: 0, To: piece}})
		wantFree(t, slots, 16)
	})
}

// TestSplitRefusedAtOnce checks that the first request is sent once and its refusal returned.
func TestSplitRefusedAtOnce(t *testing.T) {
	slots := cache.NewSlots(16)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(5, size), Plan: [][]cachetest.Fault{{cachetest.Refuse(errOrigin)}}}
		if _, err := c.Open(t.Context(), split(o, slots), o.Fetch); err != errOrigin {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		wantRequests(t, o, []cachetest.Call{{From: 0, To: piece}})
		wantFree(t, slots, 16)
	})
}

// TestSplitBad has wrong bytes in one piece: no reader gets a whole blob, and nothing is kept.
func TestSplitBad(t *testing.T) {
	for name, test := range map[string]struct {
		fault cachetest.Fault
		err   error
	}{
		"FirstPiece":  {cachetest.Flip(10), cache.ErrCorrupt},
		"MiddlePiece": {cachetest.Flip(9*piece + 10), cache.ErrCorrupt},
		"LastByte":    {cachetest.Flip(size - 1), cache.ErrCorrupt},
		"Truncated":   {cachetest.Cut(size-10, io.EOF), io.ErrUnexpectedEOF},
		"Broken":      {cachetest.Cut(9*piece+10, errOrigin), errOrigin},
	} {
		for _, readers := range []int{1, 8} {
			t.Run(fmt.Sprint(name, readers), func(t *testing.T) {
				slots := cache.NewSlots(16)
				bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
					data := cachetest.Random(6, size)
					o := &cachetest.Origin{Data: data, Pace: 1 << 20, Chunk: 10_000, At: func(int64, int64, int) []cachetest.Fault {
						return []cachetest.Fault{test.fault}
					}}
					var wg sync.WaitGroup
					for range readers {
						wg.Go(func() {
							r := openSplit(t, c, o, split(o, slots))
							got, err := io.ReadAll(r)
							if !errors.Is(err, test.err) || len(got) >= size {
								t.Errorf("read %d bytes, %v; want %v", len(got), err, test.err)
							}
						})
					}
					wg.Wait()
					synctest.Wait()
					if _, held := c.Stat(cachetest.Blob(data).Digest); held {
						t.Error("bad bytes are held")
					}
					wantFree(t, slots, 16)
					good := &cachetest.Origin{Data: data}
					want(t, openSplit(t, c, good, split(good, slots)), data)
				})
			})
		}
	}
}

// TestSplitFarReader serves a range whose piece has arrived while the beginning has not.
func TestSplitFarReader(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		gate := make(chan struct{})
		o := &cachetest.Origin{Data: cachetest.Random(7, size), At: func(from, _ int64, _ int) []cachetest.Fault {
			if from < 4*piece { // the leader and one helper more than half of the workers
				return []cachetest.Fault{cachetest.Hold(from, gate)}
			}
			return nil
		}}
		b := split(o, cache.NewSlots(16))
		b.Split.Streams = 8
		first := openSplit(t, c, o, b)
		for _, off := range []int64{10 * piece, size - piece, 6*piece + 3} {
			r := openSplit(t, c, o, b)
			if _, err := r.Seek(off, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, piece/2)
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, o.Data[off:off+piece/2]) {
				t.Errorf("range at %d: %v", off, err)
			}
		}
		r := openSplit(t, c, o, b)
		if _, err := r.Seek(size-1, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		last := make(chan error, 1)
		go func() { _, err := r.Read(make([]byte, 1)); last <- err }()
		synctest.Wait()
		select {
		case err := <-last:
			t.Errorf("the last byte was given before all were verified: %v", err)
		default:
		}
		close(gate)
		want(t, first, o.Data)
		if err := <-last; err != nil {
			t.Error(err)
		}
		wantRequests(t, o, parts())
	})
}

// TestSplitWishes checks that the next piece is one that a reader waits for, far outside of the
// window, and that no other piece from there is fetched.
func TestSplitWishes(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		gate := make(chan struct{})
		o := &cachetest.Origin{Data: cachetest.Random(8, size), At: func(from, _ int64, _ int) []cachetest.Fault {
			if from == 0 {
				return []cachetest.Fault{cachetest.Hold(0, gate)}
			}
			return nil
		}}
		b := split(o, cache.NewSlots(16))
		b.Split.Streams = 2
		first, far := openSplit(t, c, o, b), openSplit(t, c, o, b)
		synctest.Wait()
		wantRequests(t, o, parts()[:4]) // twice as many as streams
		if _, err := far.Seek(12*piece, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, piece)); err != nil {
			t.Fatal(err)
		}
		wantRequests(t, o, append(slices.Clone(parts()[:4]), parts()[12]))
		close(gate)
		want(t, first, o.Data)
		wantRequests(t, o, parts())
	})
}

// TestSplitSlots bounds the streams of several fetches together.
func TestSplitSlots(t *testing.T) {
	slots := cache.NewSlots(2)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		var wg sync.WaitGroup
		open := make([]*cachetest.Origin, 3)
		for i := range open {
			open[i] = &cachetest.Origin{Data: cachetest.Random(byte(20+i), size), Pace: 1 << 20, Chunk: 10_000}
			wg.Go(func() { want(t, openSplit(t, c, open[i], split(open[i], slots)), open[i].Data) })
		}
		wg.Wait()
		most := 0
		for _, o := range open {
			most += o.Most()
		}
		if most > 3+2 {
			t.Errorf("%d streams at once", most)
		}
		synctest.Wait()
		wantFree(t, slots, 2)
	})
}

// TestSplitSurvivesDisk breaks each step of the disk during a fetch in parts.
func TestSplitSurvivesDisk(t *testing.T) {
	for name, f := range map[string]*fault{
		"CreateFails": {op: disk.OpCreate, err: errDisk},
		"WriteFails":  {op: disk.OpWrite, err: errDisk},
		"WriteFails2": {op: disk.OpWrite, after: 40, err: errDisk},
		"ReadFails":   {op: disk.OpRead, err: errDisk},
		"ReadFails2":  {op: disk.OpRead, after: 7, err: errDisk},
		"CommitFails": {op: disk.OpPublish, err: errDisk},
	} {
		for _, readers := range []int{1, 8} {
			t.Run(fmt.Sprint(name, readers), func(t *testing.T) {
				slots := cache.NewSlots(16)
				f := &fault{op: f.op, after: f.after, err: f.err}
				bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
					o := &cachetest.Origin{Data: cachetest.Random(9, size), Pace: 1 << 20, Chunk: 10_000}
					var wg sync.WaitGroup
					for range readers {
						wg.Go(func() { want(t, openSplit(t, c, o, split(o, slots)), o.Data) })
					}
					wg.Wait()
					synctest.Wait()
					if counted(t, c, "dray_cache_degraded_total", "") == 0 {
						t.Error("nothing counted")
					}
					wantFree(t, slots, 16)
					if o.Unclosed() > 0 {
						t.Errorf("%d bodies open", o.Unclosed())
					}
				})
			})
		}
	}
}

// TestSplitStops checks that a fetch in parts ends when the cache is closed.
func TestSplitStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := cache.NewSlots(16)
		c, stop := cachetest.Start(t, cache.Options{}, disk.Options{})
		o := &cachetest.Origin{Data: cachetest.Random(10, size), Pace: 1000, Chunk: 100}
		r := openSplit(t, c, o, split(o, slots))
		stop()
		if _, err := io.ReadAll(r); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("got %v", err)
		}
		wantFree(t, slots, 16)
		if o.Unclosed() != 0 {
			t.Errorf("%d bodies open", o.Unclosed())
		}
	})
}

// TestSplitRatio measures, on the clock of a bubble, how much sooner a blob is complete if each
// connection is slow.
func TestSplitRatio(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		took := map[int]time.Duration{}
		for _, n := range []int{1, streams} {
			o := &cachetest.Origin{Data: cachetest.Random(byte(n), 32*piece), Pace: 1 << 20, Chunk: 16 << 10}
			b := split(o, cache.NewSlots(16))
			b.Split.Streams = n
			start := time.Now()
			want(t, openSplit(t, c, o, b), o.Data)
			took[n] = time.Since(start)
		}
		if ratio := took[streams].Seconds() / took[1].Seconds(); ratio > 0.26 {
			t.Errorf("%v with %d streams, %v with one: %.2f", took[streams], streams, took[1], ratio)
		}
	})
}

// TestSplitMemory bounds what a fetch in parts allocates, whatever the size of the blob. A buffer
// for each of the 48 parts would be 12 MiB. With the race detector, sync.Pool drops a quarter of
// the buffers at random, so that the bound is halfway to that.
func TestSplitMemory(t *testing.T) {
	c, _ := cachetest.Start(t, cache.Options{}, disk.Options{})
	o := &cachetest.Origin{Data: cachetest.Random(30, 48<<20)}
	b := split(o, cache.NewSlots(16))
	b.Split.Piece = 1 << 20
	buf := make([]byte, 64<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := openSplit(t, c, o, b)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
	runtime.ReadMemStats(&after)
	if err != nil || n != int64(len(o.Data)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 9<<20 {
		t.Errorf("%d MiB allocated for a blob of 48 MiB", grown>>20)
	}
}

// BenchmarkSplit compares one stream with several: if each connection is slow, and if none is.
func BenchmarkSplit(b *testing.B) {
	const blob = 64 << 20
	for _, pace := range []int64{64 << 20, 0} {
		for _, n := range []int{1, 4} {
			b.Run(fmt.Sprintf("pace=%dMiB/streams=%d", pace>>20, n), func(b *testing.B) {
				c, _ := cachetest.Start(b, cache.Options{}, disk.Options{})
				o := &cachetest.Origin{Data: cachetest.Random(31, blob), Pace: pace, Chunk: 256 << 10}
				of := split(o, cache.NewSlots(16))
				of.Split.Piece, of.Split.Streams = 8<<20, n
				b.SetBytes(blob)
				for b.Loop() {
					r, err := c.Open(b.Context(), of, o.Fetch)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						b.Fatal(err)
					}
					if err := errors.Join(r.Close(), c.Delete(b.Context(), of.Digest)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
