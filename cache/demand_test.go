package cache_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

const (
	manyPieces = 64
	grain      = piece / 8
	slotsFree  = 16
	// mostStreams are the leader, and as many helpers as leave slots for another fetch.
	mostStreams = 1 + slotsFree - (streams - 1)
)

// demanding is a fetch in parts whose origin sends nothing of the parts in held, until that is
// opened.
type demanding struct {
	*cachetest.Origin
	t       *testing.T
	c       *cache.Cache
	blob    cache.Blob
	reading sync.WaitGroup

	mu   sync.Mutex
	held func(from int64) bool
	gate chan struct{}
}

func demand(t *testing.T, c *cache.Cache, seed byte, slots *cache.Slots, held func(from int64) bool) *demanding {
	d := &demanding{t: t, c: c, held: held, gate: make(chan struct{})}
	d.Origin = &cachetest.Origin{Data: cachetest.Random(seed, manyPieces*piece), At: func(from, _ int64, _ int) []cachetest.Fault {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.held(from) {
			return []cachetest.Fault{cachetest.Hold(from, d.gate)}
		}
		return nil
	}}
	d.blob = split(d.Origin, slots)
	openSplit(t, c, d.Origin, d.blob)
	synctest.Wait()
	return d
}

// open lets the origin send the parts that were asked for so far, and holds others from now on.
func (d *demanding) open(held func(from int64) bool) {
	d.mu.Lock()
	close(d.gate)
	d.gate, d.held = make(chan struct{}), held
	d.mu.Unlock()
	synctest.Wait()
}

// read has a reader wait for the bytes from off up to end.
func (d *demanding) read(off, end int64) {
	r := openSplit(d.t, d.c, d.Origin, d.blob)
	if _, err := r.Seek(off, io.SeekStart); err != nil {
		d.t.Fatal(err)
	}
	r.Until(end)
	d.reading.Go(func() {
		got := make([]byte, end-off)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, d.Data[off:end]) {
			d.t.Errorf("range from %d to %d: %v", off, end, err)
		}
		r.Close()
	})
	synctest.Wait()
}

// finish lets the origin send everything, and checks that every byte was asked for once.
func (d *demanding) finish(most int) {
	d.t.Helper()
	d.open(never)
	d.reading.Wait()
	want(d.t, openSplit(d.t, d.c, d.Origin, d.blob), d.Data)
	wantOnce(d.t, d.Origin, most)
}

// wantOnce fails the test unless the requests ask for every byte once, with at most so many
// requests. A request that was refused may be repeated.
func wantOnce(t *testing.T, o *cachetest.Origin, most int) {
	t.Helper()
	got := o.Requests()
	slices.SortFunc(got, func(a, b cachetest.Call) int { return int(a.From - b.From) })
	at := int64(0)
	for i, q := range got {
		if refused := i+1 < len(got) && got[i+1] == q; refused {
			continue
		}
		if q.From != at || q.To <= q.From {
			t.Fatalf("after byte %d the next request is %v", at, q)
		}
		at = q.To
	}
	if at != int64(len(o.Data)) || len(got) > most {
		t.Errorf("%d requests up to byte %d; want at most %d", len(got), at, most)
	}
}

func always(int64) bool { return true }
func never(int64) bool  { return false }

// TestDemandStreams checks how many streams a fetch has while readers wait for so many pieces, and
// that it has as many as before when they wait no longer.
func TestDemandStreams(t *testing.T) {
	for _, test := range []struct{ readers, apart, want int }{
		{0, 1, streams},
		{1, 2, streams + 1},
		{3, 2, streams + 3},
		{5, 0, streams + 1}, // all want the same piece
		{20, 2, mostStreams},
	} {
		t.Run(fmt.Sprint(test.readers, test.apart), func(t *testing.T) {
			slots := cache.NewSlots(slotsFree)
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				d := demand(t, c, 80, slots, always)
				for i := range test.readers {
					d.read(int64(20+i*test.apart)*piece, int64(21+i*test.apart)*piece)
				}
				if got := d.Unclosed(); got != test.want {
					t.Errorf("%d streams, want %d", got, test.want)
				}
				d.open(always) // further pieces in order; and those that had no stream before
				d.open(always)
				d.reading.Wait()
				synctest.Wait()
				if got := d.Unclosed(); got != streams {
					t.Errorf("%d streams after the readers, want %d", got, streams)
				}
				wantFree(t, slots, slotsFree-(streams-1))
				d.finish(manyPieces)
			})
			wantFree(t, slots, slotsFree)
		})
	}
}

// TestDemandFair has a fetch with many readers, and then a second one and a third one begin. Each
// gets its streams.
func TestDemandFair(t *testing.T) {
	slots := cache.NewSlots(slotsFree)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		many := demand(t, c, 81, slots, always)
		for i := range int64(manyPieces - 20) {
			many.read((20+i)*piece, (21+i)*piece)
		}
		second := demand(t, c, 82, slots, always)
		if many.Unclosed() != mostStreams || second.Unclosed() != streams {
			t.Errorf("%d and %d streams", many.Unclosed(), second.Unclosed())
		}
		many.open(always)
		wantFree(t, slots, streams-1)
		third := demand(t, c, 83, slots, always)
		if n := third.Unclosed(); n != streams {
			t.Errorf("the third fetch has %d streams", n)
		}
		for _, d := range []*demanding{third, many, second} {
			d.finish(manyPieces)
		}
	})
	wantFree(t, slots, slotsFree)
}

// TestDemandInOrder has more readers wait for far pieces than streams can serve. The beginning is
// still fetched, as far as the window allows, because the hash needs it.
func TestDemandInOrder(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		far := func(from int64) bool { return from >= 40*piece }
		d := demand(t, c, 84, cache.NewSlots(slotsFree), func(from int64) bool { return from >= 4*piece })
		for i := range int64(20) {
			d.read((40+i)*piece, (41+i)*piece)
		}
		d.open(far)
		for at := int64(0); at < 40*piece; at += piece {
			if !slices.Contains(d.Requests(), cachetest.Call{From: at, To: at + piece}) {
				t.Fatalf("the piece at %d is not fetched: %v", at, d.Requests())
			}
		}
		d.finish(manyPieces)
	})
}

// TestDemandLags has readers fetch the end of a blob while its first piece does not come. The
// window holds back the middle until more bytes have arrived after the first gap than are missing.
func TestDemandLags(t *testing.T) {
	const window = 2 * streams
	for far, want := range map[int64]int{20: window + 20, 34: manyPieces} {
		bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
			d := demand(t, c, 89, cache.NewSlots(slotsFree), func(from int64) bool { return from == 0 })
			for i := manyPieces - far; i < manyPieces; i++ {
				d.read(i*piece, i*piece+1)
			}
			if got := len(d.Requests()); got != want {
				t.Errorf("%d pieces were asked for with %d readers, want %d", got, far, want)
			}
			d.finish(manyPieces)
		})
	}
}

// TestDemandGrain checks which part of a piece is fetched for a reader that waits in its middle:
// what it waits for and the rest, or only the former if other readers wait, too.
func TestDemandGrain(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		d := demand(t, c, 85, cache.NewSlots(slotsFree), always)
		asked := func(from, to int64) {
			t.Helper()
			if got := d.Requests(); got[len(got)-1] != (cachetest.Call{From: from, To: to}) {
				t.Errorf("asked for %v, want %d to %d", got[len(got)-1], from, to)
			}
		}
		d.read(20*piece+5*grain+1, 20*piece+6*grain)
		asked(20*piece+5*grain, 21*piece)
		d.read(20*piece+grain, 20*piece+2*grain)
		asked(20*piece+grain, 20*piece+5*grain)
		for i := d.Unclosed(); i < mostStreams; i++ {
			d.read(int64(30+i)*piece, int64(30+i)*piece+1)
			asked(int64(30+i)*piece, int64(31+i)*piece)
		}
		waits := len(d.Requests())
		d.read(22*piece+5*grain+1, 22*piece+6*grain+1)
		d.read(23*piece+2*grain, 23*piece+3*grain)
		if len(d.Requests()) != waits {
			t.Error("more streams than slots")
		}
		d.open(always)
		for _, want := range []cachetest.Call{{From: 22*piece + 5*grain, To: 22*piece + 7*grain}, {From: 23*piece + 2*grain, To: 24 * piece}} {
			if !slices.Contains(d.Requests()[waits:], want) {
				t.Errorf("asked for %v, but not for %v", d.Requests()[waits:], want)
			}
		}
		d.finish(manyPieces + 6)
	})
}

// TestDemandRefused checks that no more streams start after one was refused, and that all bytes
// come nevertheless.
func TestDemandRefused(t *testing.T) {
	slots := cache.NewSlots(slotsFree)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		d := demand(t, c, 86, slots, always)
		at := d.At
		d.At = func(from, to int64, n int) []cachetest.Fault {
			if from == 20*piece && n == 0 {
				return []cachetest.Fault{cachetest.Refuse(errOrigin)}
			}
			return at(from, to, n)
		}
		for i := range int64(20) {
			d.read((20+i)*piece+grain/2, (20+i)*piece+grain)
		}
		if got := d.Unclosed(); got != streams {
			t.Errorf("%d streams, want %d", got, streams)
		}
		if n := counted(t, c, "dray_cache_refused_parts_total", ""); n != 1 {
			t.Errorf("%v refusals counted", n)
		}
		d.open(never)
		d.reading.Wait()
		want(t, openSplit(t, c, d.Origin, d.blob), d.Data)
		if got := len(d.Requests()); got != manyPieces+1 {
			t.Errorf("%d requests", got)
		}
	})
	wantFree(t, slots, slotsFree)
}

// TestDemandOfIdle refuses one part, and has the first piece not come. The helpers that wait for
// the window to move fetch what a reader waits for.
func TestDemandOfIdle(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		d := demand(t, c, 90, cache.NewSlots(slotsFree), func(from int64) bool { return from == 0 })
		at := d.At
		d.At = func(from, to int64, n int) []cachetest.Fault {
			if from == 20*piece && n == 0 {
				return []cachetest.Fault{cachetest.Refuse(errOrigin)}
			}
			return at(from, to, n)
		}
		for i := range int64(5) {
			d.read((20+i)*piece, (21+i)*piece)
		}
		d.reading.Wait() // although the mark has not moved
		d.finish(manyPieces + 1)
	})
}

// TestDemandSurvives has many readers of random ranges, and parts that misbehave in every way that
// a fetch survives.
func TestDemandSurvives(t *testing.T) {
	for name, fault := range map[string]func(from, to int64, n int) []cachetest.Fault{
		"none":           func(int64, int64, int) []cachetest.Fault { return nil },
		"refused":        func(int64, int64, int) []cachetest.Fault { return []cachetest.Fault{cachetest.Refuse(errOrigin)} },
		"ranges ignored": func(int64, int64, int) []cachetest.Fault { return []cachetest.Fault{cachetest.Whole()} },
		"cut": func(from, to int64, n int) []cachetest.Fault {
			return []cachetest.Fault{cachetest.Cut(from+(to-from)/2, io.ErrUnexpectedEOF)}
		},
		"stalled": func(from, to int64, n int) []cachetest.Fault { return []cachetest.Fault{cachetest.Stall(from + 10)} },
	} {
		t.Run(name, func(t *testing.T) {
			slots := cache.NewSlots(slotsFree)
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				rnd := rand.New(rand.NewPCG(1, 2))
				o := &cachetest.Origin{Data: cachetest.Random(87, manyPieces*piece-123), Chunk: 10_000, Pace: 1 << 20, At: func(from, to int64, n int) []cachetest.Fault {
					if from < 5*piece || n > 0 || to < 0 || from/grain%7 > 0 {
						return nil
					}
					return fault(from, to, n)
				}}
				var wg sync.WaitGroup
				for range 24 {
					seed := rnd.Uint64()
					wg.Go(func() { readRanges(t, c, o, split(o, slots), rand.New(rand.NewPCG(seed, 3))) })
				}
				wg.Wait()
				want(t, openSplit(t, c, o, split(o, slots)), o.Data)
				synctest.Wait()
				if _, held := c.Stat(cachetest.Blob(o.Data).Digest); !held || o.Unclosed() != 0 {
					t.Errorf("held %v, %d bodies open", held, o.Unclosed())
				}
				if o.Most() > mostStreams {
					t.Errorf("%d streams", o.Most())
				}
				if name == "none" {
					wantOnce(t, o, manyPieces*8)
				}
			})
			wantFree(t, slots, slotsFree)
		})
	}
}

// readRanges reads ranges of a blob at random offsets.
func readRanges(t *testing.T, c *cache.Cache, o *cachetest.Origin, b cache.Blob, rnd *rand.Rand) {
	r := openSplit(t, c, o, b)
	end := int64(len(o.Data))
	for range 20 {
		off := rnd.Int64N(end)
		to := min(end, off+1+rnd.Int64N(piece))
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			t.Error(err)
		}
		r.Until(to)
		got := make([]byte, to-off)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, o.Data[off:to]) {
			t.Errorf("range from %d to %d: %v", off, to, err)
			return
		}
	}
}

// TestDemandRatio measures, on the clock of a bubble, how long clients with one connection each
// take for all ranges of a blob in any order, compared with the origin without a cache.
func TestDemandRatio(t *testing.T) {
	const pace = 1 << 20
	for _, length := range []int64{piece / 8, piece, 2 * piece} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				o := &cachetest.Origin{Data: cachetest.Random(88, 4*manyPieces*piece), Pace: pace, Chunk: grain}
				b := split(o, cache.NewSlots(32))
				ranges := rand.New(rand.NewPCG(5, 6)).Perm(len(o.Data) / int(length))
				queue := make(chan int64, len(ranges))
				for _, i := range ranges {
					queue <- int64(i) * length
				}
				close(queue)
				const clients = 20
				begun := time.Now()
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						r := openSplit(t, c, o, b)
						for from := range queue {
							if _, err := r.Seek(from, io.SeekStart); err != nil {
								t.Error(err)
							}
							r.Until(from + length)
							if _, err := io.CopyN(io.Discard, r, length); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				direct := time.Duration((len(ranges)+clients-1)/clients) * time.Duration(length) * time.Second / pace
				if took := time.Since(begun); took > direct*21/20 {
					t.Errorf("%v, and %v without a cache", took, direct)
				}
				wantOnce(t, o, len(o.Data)/grain)
			})
		})
	}
}
