package cachetest

import (
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"dray/cache"
)

// bad is an origin that cannot be survived: how it behaves in every call, how many
// right bytes a reader may see at most, and what it is told in the end.
type bad struct {
	faults []Fault
	most   int // right bytes
	wrong  int // position of a wrong byte, or -1
	err    error
}

func badOrigins() map[string]bad {
	return map[string]bad{
		"FirstByte":  {[]Fault{Flip(0)}, size - 1, 0, cache.ErrCorrupt},
		"MiddleByte": {[]Fault{Flip(size / 2)}, size - 1, size / 2, cache.ErrCorrupt},
		"LastByte":   {[]Fault{Flip(size - 1)}, size - 1, -1, cache.ErrCorrupt},
		"Truncated":  {[]Fault{Cut(size-10, io.EOF)}, size - 10, -1, io.ErrUnexpectedEOF},
		"CutAtLast":  {[]Fault{Cut(size-1, errOrigin)}, size - 1, -1, errOrigin},
		"Overlong":   {[]Fault{Extend([]byte("x"))}, size - 1, -1, cache.ErrSize},
		"ShortSize":  {[]Fault{Announce(size - 7)}, size - 8, -1, cache.ErrSize},
		"LongSize":   {[]Fault{Announce(size + 7)}, size, -1, io.ErrUnexpectedEOF},
		"Stalled":    {[]Fault{Stall(size / 3)}, size / 3, -1, cache.ErrStalled},
	}
}

// testBad asserts byte for byte what readers of a bad origin see, that nothing of it
// stays, and that the next one is served.
func testBad(t *testing.T, c *cache.Cache, b bad, readers int) {
	data := Random(20, size)
	o := &Origin{Data: data, Plan: slices.Repeat([][]Fault{b.faults}, 6)}
	seen := slices.Clone(data)
	if b.wrong >= 0 {
		seen[b.wrong] ^= 0xff
	}
	gate := make(chan struct{}) // one flight for all
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
