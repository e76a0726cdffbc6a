package cache_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

// following is a fetch whose first stream follows another fetch until it breaks off at some offset,
// if that is above 0.
func following(o *cachetest.Origin, slots *cache.Slots, breaks int64) cache.Blob {
	if breaks > 0 {
		o.At = func(from, to int64, _ int) []cachetest.Fault {
			if from < breaks && to < 0 {
				return []cachetest.Fault{cachetest.Cut(breaks, io.ErrUnexpectedEOF)}
			}
			return nil
		}
	}
	b := split(o, slots)
	b.Split.First = func(ctx context.Context, from, to int64) (cache.Stream, error) {
		if breaks > 0 && from >= breaks {
			return o.Part(ctx, from, to)
		}
		s, err := o.Fetch(ctx, from)
		s.Follows = true
		return s, err
	}
	return b
}

// TestFollowedRange has a reader wait for a range far beyond what a stream has brought that follows
// another fetch. A second stream brings it at once, and every byte is asked for once.
func TestFollowedRange(t *testing.T) {
	slots := cache.NewSlots(slotsFree)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(90, manyPieces*piece), Chunk: 10_000, Pace: 1 << 20}
		b := following(o, slots, 0)
		whole := openSplit(t, c, o, b)
		far := openSplit(t, c, o, b)
		must(t, far, 40*piece)
		far.Until(41 * piece)
		got := make([]byte, piece)
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
		if all, _, _ := c.Extents(b.Digest); len(all) != 2 || all[0].From != 0 || all[0].To > 3*piece || all[1] != (cache.Extent{From: 40 * piece, To: 41 * piece}) {
			t.Errorf("when the range is there, these parts are: %v", all)
		}
		far.Close()
		want(t, whole, o.Data)
		wantRequests(t, o, []cachetest.Call{{From: 0, To: -1}, {From: 40 * piece, To: 41 * piece}, {From: 41 * piece, To: -1}})
		synctest.Wait()
		wantFree(t, slots, slotsFree)
	})
}

// TestFollowedNext has a reader wait for the next piece of such a stream, which asks for nothing.
func TestFollowedNext(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(91, 8*piece), Chunk: 10_000, Pace: 1 << 20}
		b := following(o, cache.NewSlots(slotsFree), 0)
		near := openSplit(t, c, o, b)
		must(t, near, 2*piece-1)
		want(t, near, o.Data[2*piece-1:])
		wantRequests(t, o, []cachetest.Call{{From: 0, To: -1}})
	})
}

// TestFollowedBreaks has what such a stream follows end, so that the fetch asks for the rest by
// itself, by as many streams as any fetch, and for every byte once.
func TestFollowedBreaks(t *testing.T) {
	for _, at := range []int64{1000, 10 * piece, 10*piece + 1000} {
		slots := cache.NewSlots(slotsFree)
		bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
			o := &cachetest.Origin{Data: cachetest.Random(92, manyPieces*piece), Chunk: 10_000, Pace: 1 << 20}
			b := following(o, slots, at)
			var readers sync.WaitGroup
			for _, from := range []int64{0, 0, 20 * piece, 50*piece + 10} {
				readers.Go(func() {
					r := openSplit(t, c, o, b)
					must(t, r, from)
					want(t, r, o.Data[from:])
				})
			}
			readers.Wait()
			synctest.Wait()
			total := at
			for _, q := range o.Requests() {
				if q.To >= 0 {
					total += q.To - q.From
				}
			}
			if total != int64(len(o.Data)) || o.Most() < streams {
				t.Errorf("%d bytes were asked for, by up to %d streams: %v", total, o.Most(), o.Requests())
			}
			wantFree(t, slots, slotsFree)
		})
	}
}

// TestFollowedRefused has the rest refused in parts: one request then asks for all of it.
func TestFollowedRefused(t *testing.T) {
	slots := cache.NewSlots(slotsFree)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(93, 8*piece), Chunk: 10_000, Pace: 1 << 20}
		b := following(o, slots, 3*piece)
		o.At = func(from, to int64, n int) []cachetest.Fault {
			switch {
			case from == 0 && to < 0:
				return []cachetest.Fault{cachetest.Cut(3*piece, io.ErrUnexpectedEOF)}
			case to >= 0:
				return []cachetest.Fault{cachetest.Refuse(errOrigin)}
			}
			return nil
		}
		want(t, openSplit(t, c, o, b), o.Data)
		got := o.Requests()
		if last := got[len(got)-1]; last != (cachetest.Call{From: 3 * piece, To: -1}) {
			t.Errorf("requests %v", got)
		}
		synctest.Wait()
		wantFree(t, slots, slotsFree)
	})
}

// TestEnd has an origin give a blob by several answers. That is no failure.
func TestEnd(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(94, 100_000), Chunk: 999}
		b := cachetest.Blob(o.Data)
		r, err := c.Open(t.Context(), b, func(ctx context.Context, from int64) (cache.Stream, error) {
			to := from/10_000*10_000 + 10_000
			s, err := o.Part(ctx, from, to+7) // more than it says
			if s.End = to; to == 60_000 {
				s.Body.Close()
				s, err = o.Part(ctx, from, to) // and as much as it says
				s.End = to
			}
			return s, err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want(t, r, o.Data)
		if n := counted(t, c, "dray_cache_resumes_total", ""); n != 0 || o.Unclosed() != 0 {
			t.Errorf("%v resumptions, %d bodies open", n, o.Unclosed())
		}
	})
}

// must moves a reader.
func must(t *testing.T, r *cache.Reader, off int64) {
	t.Helper()
	if _, err := r.Seek(off, io.SeekStart); err != nil {
		t.Fatal(err)
	}
}
