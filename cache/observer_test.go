package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// observer records the ends of fetches, and says of the first failure that it concerns one place.
type observer struct {
	mu   sync.Mutex
	ends []error
}

func (o *observer) Ended(reason error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends = append(o.ends, reason)
	return reason != nil && len(o.ends) == 1
}

func (o *observer) Joined(Observer) {}

func (o *observer) ended() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ends
}

// TestReadersGoOnAfterWrongBytes has an origin give wrong bytes in the second half of a blob, the
// first time that it is asked. Readers that did not get these bytes must get the blob, by one more
// request in all. A reader that got them must fail.
func TestReadersGoOnAfterWrongBytes(t *testing.T) {
	c := running(t)
	const half = 1 << 20
	p := bytes.Repeat([]byte("0123456789abcdef"), half/8)
	wrong := bytes.Clone(p)
	wrong[half+half/2]++
	body, feed := io.Pipe()
	var mu sync.Mutex
	asked := 0
	origin := func(_ context.Context, from int64) (Stream, error) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked == 1 {
			return Stream{Body: body, Size: int64(len(p))}, nil
		}
		return Stream{Body: io.NopCloser(bytes.NewReader(p[from:])), Size: int64(len(p))}, nil
	}
	seen := &observer{}
	open := func() *Reader {
		r, err := c.Open(t.Context(), Blob{Digest: digest.FromBytes(p), Size: int64(len(p)), Observer: seen}, origin)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	early, late, ranged, sending := open(), open(), open(), open()
	feeding := make(chan error, 1)
	go func() {
		_, err := feed.Write(wrong[:len(p)-1]) // the last byte follows when the readers are where they should be
		feeding <- err
	}()
	first := make([]byte, half)
	if _, err := io.ReadFull(early, first); err != nil || !bytes.Equal(first, p[:half]) {
		t.Fatalf("first half: %v", err)
	}
	if _, err := io.CopyN(io.Discard, late, int64(half+half/2+1)); err != nil {
		t.Fatal(err)
	}
	if file, n, err := sending.Stretch(half); err != nil || file == nil || n <= 0 {
		t.Fatalf("no stretch: %v", err)
	} else if err := sending.Passed(n, nil); err != nil {
		t.Fatal(err)
	} else {
		first = p[n:]
	}
	if err := <-feeding; err != nil {
		t.Fatal(err)
	}
	if _, err := feed.Write(wrong[len(p)-1:]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if err := early.Wait(); !errors.Is(err, ErrCorrupt) { // otherwise it might still be given wrong bytes
		t.Fatalf("the fetch ended with %v", err)
	}

	if got, err := io.ReadAll(early); err != nil || !bytes.Equal(got, p[half:]) {
		t.Errorf("a reader of right bytes got %d more, %v", len(got), err)
	}
	if _, err := io.ReadAll(late); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a reader that got a wrong byte: %v", err)
	}
	if _, err := ranged.Seek(half, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(ranged); err != nil || !bytes.Equal(got, p[half:]) {
		t.Errorf("a reader of a range got %d bytes, %v", len(got), err)
	}
	if got, err := io.ReadAll(sending); err != nil || !bytes.Equal(got, first) {
		t.Errorf("a reader that has sent from the file got %d of %d bytes, %v", len(got), len(first), err)
	}
	if file, n, err := sending.Stretch(half); file != nil || n != 0 || err != nil {
		t.Errorf("the end has a stretch of %d bytes, %v", n, err)
	}
	if asked != 2 {
		t.Errorf("the origin was asked %d times", asked)
	}
	if ends := seen.ended(); len(ends) != 2 || !errors.Is(ends[0], ErrCorrupt) || ends[1] != nil {
		t.Errorf("the fetches ended with %v", ends)
	}
}
