package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestSimulation checks that a simulation holds the same blobs as a directory that gets the same
// requests, after each request.
func TestSimulation(t *testing.T) {
	const quota = 8 << 20
	d := opened(t, Options{Path: t.TempDir(), MaxBytes: quota})
	s := NewSimulation(quota, TwoPools)
	random := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for i := range 500 {
		n := int(random.ExpFloat64() * 40)
		content := bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), 64)
		if n%5 == 0 { // a large one
			content = bytes.Repeat(content, 2100)
		}
		dg := digest.FromBytes(content)
		blob, err := d.Open(t.Context(), dg)
		held := err == nil
		if !held {
			mustStore(t, d, content)
		} else if err := blob.Close(); err != nil {
			t.Fatal(err)
		}
		if hit := s.Request(dg, int64(len(content))); hit != held {
			t.Fatalf("request %d: the simulation says held: %v, the directory %v", i, hit, held)
		}
		if held {
			hits++
		}
		if have := d.Stats(); have.Bytes != s.used || have.Blobs != len(s.index) {
			t.Fatalf("request %d: %d bytes of %d blobs in the simulation, %d of %d in the directory", i, s.used, len(s.index), have.Bytes, have.Blobs)
		}
	}
	if evicted := counted(t, d, "dray_disk_evicted_total"); hits < 100 || evicted < 50 {
		t.Errorf("%d hits, %v evicted: nothing was tried", hits, evicted)
	}
}

// TestSimulationBounds checks that a blob larger than the quota is never held, and that with one
// pool all blobs have one order.
func TestSimulationBounds(t *testing.T) {
	s := NewSimulation(2*smallBlob, OnePool)
	huge, large, small := digest.FromString("huge"), digest.FromString("large"), digest.FromString("small")
	for _, step := range []struct {
		dg   digest.Digest
		size int64
		hit  bool
	}{
		{huge, 3 * smallBlob, false}, {huge, 3 * smallBlob, false},
		{small, 10, false}, {small, 10, true}, {large, 2 * smallBlob, false}, {large, 2 * smallBlob, true},
		{small, 10, false},
	} {
		if hit := s.Request(step.dg, step.size); hit != step.hit {
			t.Errorf("%s: hit %v", step.dg, hit)
		}
		if s.used > s.max {
			t.Fatalf("%d bytes of %d", s.used, s.max)
		}
	}
}
