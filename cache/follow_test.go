package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// observed notes how a flight ended, and wants another one.
type observed struct {
	again bool
	mu    sync.Mutex // guards ended
	ended []error
}

func (o *observed) Joined(Observer) {}

func (o *observed) Ended(reason error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = append(o.ended, reason)
	return o.again && reason != nil
}

// told returns what it was told.
func (o *observed) told() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.ended)
}

// TestFollow reads a blob while it arrives, and after that, without a fetch of its own.
func TestFollow(t *testing.T) {
	c := running(t)
	p := bytes.Repeat([]byte("followed "), 20_000)
	d := digest.FromBytes(p)
	if _, err := c.Follow(t.Context(), d); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the fetch: %v", err)
	}
	if _, ok := c.Progress(d, 0); ok {
		t.Error("progress before the fetch")
	}
	body, feed := io.Pipe()
	o := &observed{}
	first, err := c.Open(t.Context(), Blob{Digest: d, Size: int64(len(p)), Observer: o}, func(context.Context, int64) (Stream, error) {
		return Stream{Body: body, Size: int64(len(p))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	follower, err := c.Follow(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	half := len(p) / 2
	if _, err := feed.Write(p[:half]); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, half)
	if _, err := io.ReadFull(follower, got); err != nil || !bytes.Equal(got, p[:half]) {
		t.Errorf("half of it: %v", err)
	}
	if n, ok := c.Progress(d, int64(half-10)); !ok || n != 10 {
		t.Errorf("progress is %d, %v", n, ok)
	}
	if n, ok := c.Progress(d, int64(half+10)); !ok || n != 0 {
		t.Errorf("progress past the end is %d, %v", n, ok)
	}
	if _, err := feed.Write(p[half:]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if rest, err := io.ReadAll(follower); err != nil || !bytes.Equal(rest, p[half:]) {
		t.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the flight ended with %v", err)
	}
	c.flights.running.Wait() // readers learn of success before the observer does
	if told := o.told(); len(told) != 1 || told[0] != nil {
		t.Errorf("the observer was told %v", told)
	}
	late, err := c.Follow(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if whole, err := io.ReadAll(late); err != nil || !bytes.Equal(whole, p) || !late.Held() {
		t.Errorf("after the fetch: %d bytes, %v", len(whole), err)
	}
	if n, ok := c.Progress(d, 10); !ok || n != int64(len(p)-10) {
		t.Errorf("progress of a held blob is %d, %v", n, ok)
	}
}

// TestFollowRefused: who follows gets the refusal of the origin.
func TestFollowRefused(t *testing.T) {
	c := running(t)
	d, refusal := digest.FromString("refused"), errors.New("refused")
	asked, refuse := make(chan struct{}), make(chan struct{})
	o := &observed{}
	first := make(chan error, 1)
	go func() {
		_, err := c.Open(t.Context(), Blob{Digest: d, Size: 7, Via: "private", Observer: o}, func(context.Context, int64) (Stream, error) {
			close(asked)
			<-refuse
			return Stream{}, refusal
		})
		first <- err
	}()
	<-asked
	if n, ok := c.Progress(d, 0); !ok || n != 0 {
		t.Errorf("progress is %d, %v", n, ok)
	}
	follower := make(chan error, 1)
	go func() {
		_, err := c.Follow(t.Context(), d)
		follower <- err
	}()
	close(refuse)
	if err := <-follower; !errors.Is(err, refusal) && !errors.Is(err, ErrNotFound) { // the latter if it came late
		t.Errorf("the follower got %v", err)
	}
	if err, told := <-first, o.told(); err != refusal || len(told) != 1 || told[0] != refusal {
		t.Errorf("got %v, and the observer was told %v", err, told)
	}
}

// TestAgain has the first fetch of a blob give wrong bytes, which its observer blames on one place.
// A reader that has been given none of them goes on with the second fetch, and one that has been
// given some ends with an error.
func TestAgain(t *testing.T) {
	c := running(t)
	p := bytes.Repeat([]byte("right "), 10_000)
	bad := bytes.Repeat([]byte("wrong "), 10_000)
	b := Blob{Digest: digest.FromBytes(p), Size: int64(len(p)), Observer: &observed{again: true}}
	body, feed := io.Pipe()
	asked := 0
	origin := func(context.Context, int64) (Stream, error) {
		if asked++; asked == 1 {
			return Stream{Body: body, Size: b.Size}, nil
		}
		return Stream{Body: io.NopCloser(bytes.NewReader(p)), Size: b.Size}, nil
	}
	readers := make([]*Reader, 2)
	for i := range readers {
		r, err := c.Open(t.Context(), b, origin)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers[i] = r
	}
	if _, err := feed.Write(bad[:1000]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(readers[0], make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	if _, err := feed.Write(bad[1000:]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if _, err := io.ReadAll(readers[0]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a reader with wrong bytes ends with %v", err)
	}
	if err := readers[1].Wait(); err == nil {
		t.Error("the first fetch ended well")
	}
	if got, err := io.ReadAll(readers[1]); err != nil || !bytes.Equal(got, p) {
		t.Errorf("a reader without bytes got %d, %v", len(got), err)
	}
}
