package cachetest

import (
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"dray/cache"
)

// bad is an origin that makes a fetch fail.
type bad struct {
	first  []Fault // faults of the first call; nil if the first call has the same faults as the other calls
	faults []Fault
	most   int   // the greatest number of bytes that a reader may see
	wrong  int   // position of a wrong byte that a reader may see, or -1
	err    error // the error that the reader gets
}

func badOrigins() map[string]bad {
	return map[string]bad{
		"FirstByte":  {nil, []Fault{Flip(0)}, size - 1, 0, cache.ErrCorrupt},
		"MiddleByte": {nil, []Fault{Flip(size / 2)}, size - 1, size / 2, cache.ErrCorrupt},
		"LastByte":   {nil, []Fault{Flip(size - 1)}, size - 1, -1, cache.ErrCorrupt},
		"Truncated":  {nil, []Fault{Cut(size-10, io.EOF)}, size - 10, -1, io.ErrUnexpectedEOF},
		"CutAtLast":  {nil, []Fault{Cut(size-1, errOrigin)}, size - 1, -1, errOrigin},
		"Overlong":   {nil, []Fault{Extend([]byte("x"))}, size - 1, -1, cache.ErrSize},
		"ShortSize":  {nil, []Fault{Announce(size - 7)}, size - 8, -1, cache.ErrSize},
		"LongSize":   {nil, []Fault{Announce(size + 7)}, 0, -1, cache.ErrSize},
		"NoSize":     {nil, []Fault{Announce(-1), Extend(Random(1, 9*size))}, size - 1, -1, cache.ErrSize},
		"Stalled":    {nil, []Fault{Stall(size / 3)}, size / 3, -1, cache.ErrStalled},
	}
}

// brokenBadOrigins returns origins that break off once, and are bad from the first resumption on.
func brokenBadOrigins() map[string]bad {
	all := badOrigins()
	delete(all, "FirstByte") // a resumption does not ask for the first byte
	for name, b := range all {
		b.first = []Fault{Cut(size/4, errOrigin)}
		if name == "ShortSize" || name == "LongSize" { // the resumption announces another size than the first answer
			b.most, b.err = size/4, cache.ErrSize
		}
		all[name] = b
	}
	return all
}

// testBad checks byte for byte what readers of a bad origin see. It also checks that the cache then
// does not hold the blob, and that the next reader is served.
func testBad(t *testing.T, c *cache.Cache, b bad, readers int) {
	data := Random(20, size)
	o := &Origin{Data: data, Plan: slices.Repeat([][]Fault{b.faults}, 8)}
	if b.first != nil {
		o.Plan[0] = b.first
	}
	seen := slices.Clone(data)
	if b.wrong >= 0 {
		seen[b.wrong] ^= 0xff
	}
	gate := make(chan struct{}) // delays the origin until all readers have joined the flight
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			got, err := attempt(t, c, data, Gated(gate, o.Fetch))
			wantFailure(t, got, seen[:b.most], err, b.err)
		})
	}
	synctest.Wait()
	close(gate)
	wg.Wait()
	synctest.Wait()
	for _, from := range o.Calls()[1:] {
		if from == 0 {
			t.Errorf("calls of the origin %v: more than one flight", o.Calls())
		}
	}
	if _, held := c.Stat(Blob(data).Digest); held {
		t.Error("bad bytes are held")
	}
	good := &Origin{Data: data}
	want(t, open(t, c, data, good), data)
	wantCalls(t, good, 0)
}
