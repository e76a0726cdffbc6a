package disk

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestIndex has digests that begin alike, as an attacker could make them.
func TestIndex(t *testing.T) {
	long := digest.SHA512.FromString("x")
	same := digest.NewDigestFromEncoded(digest.SHA256, long.Encoded()[:64])
	other := digest.NewDigestFromEncoded(digest.SHA256, long.Encoded()[:16]+digest.FromString("y").Encoded()[16:])
	longer := digest.NewDigestFromEncoded(digest.SHA512, long.Encoded()[:64]+other.Encoded())
	all := []digest.Digest{same, long, other, longer, digest.FromString("z")}
	for gone := range all {
		x, held := newIndex(), map[digest.Digest]*entry{}
		for _, dg := range all {
			held[dg] = &entry{key: keyOf(dg)}
			x.put(held[dg])
		}
		for range 2 { // what comes back is found again, and everything once
			check(t, &x, all, held)
			x.remove(held[all[gone]])
			back := held[all[gone]]
			delete(held, all[gone])
			check(t, &x, all, held)
			held[all[gone]] = back
			x.put(back)
			held[all[1]] = &entry{key: keyOf(all[1])} // in place of the older one
			x.put(held[all[1]])
		}
	}
}

func check(t *testing.T, x *index, all []digest.Digest, held map[digest.Digest]*entry) {
	t.Helper()
	for _, dg := range all {
		if got := x.get(dg); got != held[dg] {
			t.Errorf("%s: got %p, want %p", dg, got, held[dg])
		}
	}
	seen := 0
	for e := range x.all() {
		seen++
		if held[e.digest()] != e {
			t.Errorf("%s is left", e.digest())
		}
	}
	if seen != len(held) || x.len() != len(held) {
		t.Errorf("%d entries, %d said, %d held", seen, x.len(), len(held))
	}
}
