package disk

import (
	"encoding/binary"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestGone: the last blobs that have left are remembered, with the last reason, and no more than
// the bound allows.
func TestGone(t *testing.T) {
	var d departed
	name := func(i int) uint64 {
		k := keyOf(digest.FromBytes(binary.BigEndian.AppendUint64(nil, uint64(i))))
		return k.prefix()
	}
	for i := range 3 * maxGone {
		d.add(name(i), GoneEvicted)
		d.add(name(i), GoneRemoved)
	}
	if len(d.why) != maxGone || len(d.last) != maxGone {
		t.Fatalf("%d and %d are remembered", len(d.why), len(d.last))
	}
	for _, i := range []int{2 * maxGone, 3*maxGone - 1} {
		if g, ok := d.why[name(i)]; !ok || g.Why != GoneRemoved || g.At.IsZero() {
			t.Errorf("%d: %+v", i, g)
		}
	}
	if _, ok := d.why[name(2*maxGone-1)]; ok {
		t.Error("one too many is remembered")
	}
	a := newAccount(0, 0)
	if _, ok := a.Gone("nonsense"); ok {
		t.Error("nonsense is remembered")
	}
}
