package disk

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
)

func idle(*entry) bool { return false }

// blob returns an entry of the given number of bytes whose digest depends on i only.
func blob(i int, size int64) *entry {
	return &entry{key: keyOf(digest.FromString(fmt.Sprint(i))), size: size}
}

// victim evicts the next blob.
func victim(p *policy, coming int64, busy func(*entry) bool) *entry {
	e, _ := p.clock().victim(coming, busy)
	return e
}

// victims evicts until nothing is left and returns the order.
func victims(p *policy, busy func(*entry) bool) []*entry {
	var all []*entry
	for e := victim(p, 0, busy); e != nil; e = victim(p, 0, busy) {
		all = append(all, e)
	}
	return all
}

func TestBlocks(t *testing.T) {
	for n, want := range map[int64]int64{0: 4096, 1: 4096, 4096: 4096, 4097: 8192, 1 << 20: 1 << 20} {
		if got := blocks(n); got != want {
			t.Errorf("blocks(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestEvictOldestFirst(t *testing.T) {
	p := newPolicy(1 << 40)
	var want []*entry
	for i := range 10 {
		e := blob(i, smallBlob)
		p.add(e)
		want = append(want, e)
	}
	old := blob(99, smallBlob)
	p.addOld(old)
	got := victims(&p, idle)
	for i, e := range append([]*entry{old}, want...) {
		if got[i] != e {
			t.Fatalf("victim %d is not the oldest", i)
		}
	}
	if p.large.bytes() != 0 || p.large.len() != 0 {
		t.Errorf("%d bytes of %d entries left of nothing", p.large.bytes(), p.large.len())
	}
}

func TestHitBlobOutlivesOthers(t *testing.T) {
	p := newPolicy(1 << 40)
	hot := blob(0, smallBlob)
	p.add(hot)
	for range 10 {
		hot.hit()
	}
	if hot.hits.Load() != maxHits {
		t.Errorf("%d hits counted, want them to end at %d", hot.hits.Load(), maxHits)
	}
	for i := range 100 {
		p.add(blob(i+1, smallBlob))
		if i >= 9 && victim(&p, smallBlob, idle) == hot {
			t.Fatal("the hit blob was evicted by a scan")
		}
	}
}

func TestGhostReturnsToMain(t *testing.T) {
	p := newPolicy(1 << 40)
	for i := range 10 {
		p.add(blob(i, smallBlob))
	}
	gone := victim(&p, 0, idle)
	again := blob(0, smallBlob)
	if gone.digest() != again.digest() {
		t.Fatal("not the oldest")
	}
	p.add(again)
	if again.queue != p.large.main {
		t.Error("a blob asked for again soon after its eviction is on probation again")
	}
	if p.large.ghosts.bytes != 0 {
		t.Errorf("%d bytes of ghosts, though the only one came back", p.large.ghosts.bytes)
	}
}

// len counts the entries of a pool.
func (p *pool) len() int { return p.fresh.len + p.main.len }

// len counts the ghosts in their order.
func (g *ghosts) len() (n int) {
	for x := g.head.next; x != &g.head; x = x.next {
		n++
	}
	return n
}

func TestGhostsAreBounded(t *testing.T) {
	p := newPolicy(1 << 40)
	for i := range 1000 {
		p.add(blob(i, smallBlob))
		if i >= 10 {
			victim(&p, 0, idle)
		}
		if g := p.large.ghosts; g.bytes > p.large.bytes()+smallBlob || len(g.known) != g.len() {
			t.Fatalf("%d bytes in %d ghosts, %d in order, for %d bytes held", g.bytes, len(g.known), g.len(), p.large.bytes())
		}
	}
}

func TestBusyIsNeverVictim(t *testing.T) {
	p := newPolicy(1 << 40)
	for i := range 20 {
		e := blob(i, smallBlob+int64(i))
		if i%3 == 0 {
			e.refs.Add(1)
		}
		p.add(e)
	}
	got := victims(&p, func(e *entry) bool { return e.refs.Load() > 0 })
	if len(got) != 13 || p.large.len() != 7 {
		t.Errorf("%d evicted, %d left; want 13 and 7", len(got), p.large.len())
	}
}

func TestSmallBlobsHaveTheirShare(t *testing.T) {
	p := newPolicy(100 << 20) // 2 MiB for small ones
	for i := range 256 {
		p.add(blob(i, 4096)) // 1 MiB in all
	}
	for i := range 90 {
		p.add(blob(1000+i, smallBlob))
	}
	for range 90 {
		if e := victim(&p, smallBlob, idle); e.size < smallBlob {
			t.Fatal("a small blob had to go though they have no more than their share")
		}
	}
	for i := range 512 {
		p.add(blob(2000+i, 4096))
	}
	p.add(blob(5000, smallBlob))
	for p.small.bytes() > p.smallMax {
		if e := victim(&p, smallBlob, idle); e.size >= smallBlob {
			t.Fatal("a large blob had to go though the small ones have more than their share")
		}
	}
	if e := victim(&p, smallBlob, idle); e.size < smallBlob {
		t.Error("small blobs shrink below their share")
	}
}

// TestPolicyAccount calls random methods and compares the bytes of the queues with a plain sum.
func TestPolicyAccount(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	p := newPolicy(64 << 20)
	held := map[*entry]bool{}
	for i := range 20_000 {
		switch rnd.IntN(5) {
		case 0, 1:
			e := blob(rnd.IntN(500), rnd.Int64N(3<<20))
			held[e] = true
			p.add(e)
		case 2:
			if e := victim(&p, 0, idle); e != nil {
				if !held[e] {
					t.Fatal("evicted what was not held")
				}
				delete(held, e)
			}
		case 3:
			for e := range held {
				p.remove(e)
				delete(held, e)
				break
			}
		case 4:
			for e := range held {
				e.hit()
				break
			}
		}
		if i%100 != 0 {
			continue
		}
		var sum int64
		for e := range held {
			sum += e.blocks()
		}
		if got := p.small.bytes() + p.large.bytes(); got != sum || p.small.len()+p.large.len() != len(held) {
			t.Fatalf("step %d: %d bytes in the account, %d held", i, got, sum)
		}
	}
}

// TestEvictBesideBusyBlobs: if all blobs of the main queue are in use or pinned, a new blob is
// evicted although the short queue has less than its share.
func TestEvictBesideBusyBlobs(t *testing.T) {
	p := newPolicy(1 << 40)
	held := map[*entry]bool{}
	for i := range 100 {
		e := blob(i, smallBlob)
		held[e] = true
		p.add(e)
	}
	busy := func(e *entry) bool { return held[e] }
	if e := victim(&p, smallBlob, busy); e != nil {
		t.Fatal("a busy blob was evicted")
	}
	hot, cold := blob(200, smallBlob), blob(201, smallBlob)
	p.add(hot)
	p.add(cold)
	hot.hit()
	if e := victim(&p, smallBlob, busy); e != cold {
		t.Errorf("evicted %v, not the blob that nobody has asked for", e)
	}
	if e := victim(&p, smallBlob, busy); e != hot {
		t.Errorf("evicted %v, not the last blob that is not busy", e)
	}
	if e := victim(&p, smallBlob, busy); e != nil {
		t.Error("a busy blob was evicted")
	}
}
