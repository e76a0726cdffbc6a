package cache

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestArrive has bytes arrive in any order, and compares what readers may have with a map of single
// bytes.
func TestArrive(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		length := 1 + rnd.IntN(60)
		g := newGrowing(bytes.NewReader(make([]byte, length)), int64(length), func() error { return nil })
		have := make([]bool, length)
		for left := length; left > 0; {
			from := rnd.IntN(length)
			if have[from] {
				continue
			}
			n := 0
			for most := 1 + rnd.IntN(9); from+n < length && n < most && !have[from+n]; n++ {
				have[from+n] = true
			}
			left -= n
			g.arrive(int64(from), n)
			checkVisible(t, g, have)
		}
		if g.written != int64(length) || len(g.beyond) != 0 || g.arrived != int64(length) {
			t.Fatalf("seed %d: %d of %d bytes, and %v", seed, g.written, length, g.beyond)
		}
	}
}

func checkVisible(t *testing.T, g *growing, have []bool) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for off := range have {
		end := off
		for end < len(have)-1 && have[end] { // but for the last byte
			end++
		}
		if got := max(g.readableEnd(int64(off)), int64(off)); got != int64(end) {
			t.Fatalf("from %d on visible up to %d, want %d: %v, %v", off, got, end, have, g.beyond)
		}
	}
}
