package main

import "testing"

// TestRanges checks that clients together fetch every byte of a blob once, whose last range is
// shorter than the others.
func TestRanges(t *testing.T) {
	const size, length = 1<<20 + 100, 100_000
	img := testImage(t, 1, size)
	o, err := openOrigin(shape{}, img)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	l := newLoader(nil)
	if _, err := l.ranges(t.Context(), o.address, img.blob(img.layers[0]), size, rangeLoad{3, length}); err != nil {
		t.Fatal(err)
	}
	if got, want := o.counts(), (counts{Requests: size/length + 1, Connections: 3, Bytes: size}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := l.bytes.Load(); n != size {
		t.Errorf("the clients got %d bytes", n)
	}
}
