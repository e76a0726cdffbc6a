package memory_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/memory"
)

func TestLeastRecentlyUsedLeaveFirst(t *testing.T) {
	const length = 1000
	object := func(i int) ([]byte, digest.Digest) {
		p := make([]byte, length)
		p[0] = byte(i)
		return p, digest.FromBytes(p)
	}
	m := memory.New(10 * 2 * length)
	_, first := object(0)
	for i := range 30 {
		p, d := object(i)
		m.Add(d, p)
		if _, held := m.Get(first); !held {
			t.Fatalf("object 0 left although it was used after each of %d others", i)
		}
		if n := m.Size(); n > 10*2*length {
			t.Fatalf("%d bytes after %d objects", n, i+1)
		}
	}
	_, second := object(1)
	if _, held := m.Peek(second); held {
		t.Error("object 1, which nobody used, is still held")
	}
	for i := range 30 {
		_, d := object(i)
		m.Remove(d)
	}
	if n := m.Size(); n != 0 {
		t.Errorf("%d bytes without objects", n)
	}
	large := make([]byte, 10*2*length/8)
	m.Add(digest.FromBytes(large), large)
	if m.Size() != 0 {
		t.Error("an object of more than an eighth of the memory is kept")
	}
}
