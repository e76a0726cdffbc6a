package cachetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/cache"
)

var errOrigin = errors.New("origin says no")

// TestReads checks what a cache guarantees to every reader. newCache returns a cache that runs
// until the test ends. It is called inside a bubble of testing/synctest.
func TestReads(t *testing.T, newCache func(t *testing.T) *cache.Cache) {
	for name, test := range map[string]func(*testing.T, *cache.Cache){
		"ColdThenWarm": testColdThenWarm, "Herd": testHerd, "HerdOfSmall": testHerdOfSmall, "Ranges": testRanges,
		"LeaveEarly": testLeaveEarly, "JoinLate": testJoinLate, "SlowReader": testSlowReader,
		"Refusal": testRefusal, "Resume": testResume, "GiveUp": testGiveUp,
		"UnknownSize": testUnknownSize, "Empty": testEmpty, "Sha512": testSha512,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newCache(t)) })
		})
	}
	for kind, origins := range map[string]map[string]bad{"Bad/": badOrigins(), "BadResumed/": brokenBadOrigins()} {
		for name, faults := range origins {
			for readers, label := range map[int]string{1: "one", 16: "many"} {
				t.Run(kind+name+"/"+label, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testBad(t, newCache(t), faults, readers) })
				})
			}
		}
	}
}

const size = 1<<20 + 4321

// open opens a blob and closes it when the test ends.
func open(t *testing.T, c *cache.Cache, p []byte, o *Origin) *cache.Reader {
	t.Helper()
	r, err := c.Open(t.Context(), Blob(p), o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// [attempt] reads a blob from an origin that fails. The error comes from Open if the flight fails
// before Open returns, and otherwise from a Read.
func attempt(t *testing.T, c *cache.Cache, p []byte, origin cache.Origin) ([]byte, error) {
	t.Helper()
	r, err := c.Open(t.Context(), Blob(p), origin)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// wantFailure checks that err is wantErr, and that data, which was read before the error, is a
// prefix of p.
func wantFailure(t *testing.T, data, p []byte, err, wantErr error) {
	t.Helper()
	if !errors.Is(err, wantErr) {
		t.Errorf("error %v, want %v", err, wantErr)
	}
	if len(data) > len(p) || !bytes.Equal(data, p[:len(data)]) {
		t.Errorf("saw %d bytes, want at most %d, and these as the origin gave them", len(data), len(p))
	}
}

// [want] reads r to its end and compares the bytes with p.
func want(t *testing.T, r io.Reader, p []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, p) {
		t.Errorf("read %d bytes, equal %v, error %v; want %d bytes", len(got), bytes.Equal(got, p), err, len(p))
	}
}

func wantCalls(t *testing.T, o *Origin, calls ...int64) {
	t.Helper()
	if d := cmp.Diff(calls, o.Calls()); d != "" {
		t.Errorf("calls of the origin (-want +got):\n%s", d)
	}
}

func wantSource(t *testing.T, r *cache.Reader, s cache.Source) {
	t.Helper()
	if r.Source() != s {
		t.Errorf("source %s, want %s", r.Source(), s)
	}
}

func testColdThenWarm(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(1, size)}
	cold := open(t, c, o.Data, o)
	wantSource(t, cold, cache.SourceOrigin)
	if cold.Held() {
		t.Error("a blob on its way counts as held")
	}
	want(t, cold, o.Data)
	synctest.Wait() // the flight has ended
	warm := open(t, c, o.Data, o)
	wantSource(t, warm, cache.SourceDisk)
	if !warm.Held() || warm.Size() != size {
		t.Errorf("warm blob: held %v, size %d", warm.Held(), warm.Size())
	}
	want(t, warm, o.Data)
	wantCalls(t, o, 0)
	if o.Unclosed() != 0 {
		t.Error("body of the origin left open")
	}
}

func testHerd(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(2, size), Chunk: 10_000}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { want(t, open(t, c, o.Data, o), o.Data) })
	}
	wg.Wait()
	wantCalls(t, o, 0)
}

// testHerdOfSmall tests callers that come while the flight of their blob ends. No caller may fetch
// a blob that was just published.
func testHerdOfSmall(t *testing.T, c *cache.Cache) {
	for i := range 50 {
		o := &Origin{Data: Random(byte(i), 1000)}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { want(t, open(t, c, o.Data, o), o.Data) })
		}
		wg.Wait()
		wantCalls(t, o, 0)
	}
}

// testRanges checks that readers can read any ranges of a cold blob.
func testRanges(t *testing.T, c *cache.Cache) {
	gate := make(chan struct{})
	o := &Origin{Data: Random(3, size), Chunk: 30_000, Plan: [][]Fault{{Hold(size/2, gate)}}}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(i)))
			r := open(t, c, o.Data, o)
			for range 4 {
				from := rnd.IntN(size + 1)
				to := from + rnd.IntN(size+1-from)
				if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
					t.Error(err)
				}
				got := make([]byte, to-from)
				if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, o.Data[from:to]) {
					t.Errorf("range %d to %d: %d bytes, %v", from, to, n, err)
				}
			}
			if n, err := r.Seek(-5, io.SeekEnd); n != size-5 || err != nil {
				t.Errorf("seek to %d, %v", n, err)
			}
			want(t, r, o.Data[size-5:])
		})
	}
	synctest.Wait()
	close(gate)
	wg.Wait()
	wantCalls(t, o, 0)
}

func testLeaveEarly(t *testing.T, c *cache.Cache) {
	gate := make(chan struct{})
	o := &Origin{Data: Random(4, size), Plan: [][]Fault{{Hold(size/2, gate)}}}
	first, stays := open(t, c, o.Data, o), open(t, c, o.Data, o)
	wantSource(t, stays, cache.SourceFlight)
	if _, err := io.ReadFull(first, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	close(gate)
	want(t, stays, o.Data)

	all := &Origin{Data: Random(5, size), Plan: [][]Fault{{Hold(1000, gate)}}}
	open(t, c, all.Data, all).Close() // no one waits, and the flight continues
	synctest.Wait()
	if n, ok := c.Stat(Blob(all.Data).Digest); !ok || n != size {
		t.Errorf("flight without readers left %d bytes, %v", n, ok)
	}
}

func testJoinLate(t *testing.T, c *cache.Cache) {
	gate := make(chan struct{})
	o := &Origin{Data: Random(6, size), Plan: [][]Fault{{Hold(size-1, gate)}}}
	first := open(t, c, o.Data, o)
	if _, err := io.ReadFull(first, make([]byte, size-1)); err != nil {
		t.Fatal(err)
	}
	late := open(t, c, o.Data, o)
	got := make([]byte, size-1)
	if _, err := io.ReadFull(late, got); err != nil || !bytes.Equal(got, o.Data[:size-1]) {
		t.Errorf("late reader: %v", err)
	}
	close(gate)
	want(t, late, o.Data[size-1:])
	want(t, first, o.Data[size-1:])
	wantCalls(t, o, 0)
}

// testSlowReader has a reader that reads nothing while another reader finishes.
func testSlowReader(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(7, size)}
	slow := open(t, c, o.Data, o)
	want(t, open(t, c, o.Data, o), o.Data)
	synctest.Wait()
	if err := c.Delete(t.Context(), Blob(o.Data).Digest); err != nil {
		t.Error(err)
	}
	want(t, slow, o.Data)
}

// testRefusal has an origin that refuses several callers. The next caller asks it again.
func testRefusal(t *testing.T, c *cache.Cache) {
	gate := make(chan struct{})
	o := &Origin{Data: Random(8, 1000), Plan: [][]Fault{{Refuse(errOrigin)}, {Refuse(errOrigin)}}}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, err := c.Open(t.Context(), Blob(o.Data), Gated(gate, o.Fetch))
			if err != errOrigin { // not wrapped
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	synctest.Wait()
	close(gate)
	wg.Wait()
	wantCalls(t, o, 0)
	if _, err := c.Open(t.Context(), Blob(o.Data), o.Fetch); err != errOrigin { // not wrapped
		t.Errorf("second time: %v", err)
	}
	want(t, open(t, c, o.Data, o), o.Data)
	wantCalls(t, o, 0, 0, 0)
}

// testResume has an origin that breaks off in every way that a fetch survives.
func testResume(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(9, size), Plan: [][]Fault{
		{Cut(1000, io.ErrUnexpectedEOF)}, {Cut(2000, io.EOF)}, {Refuse(errOrigin)}, {Stall(3000)}, {Cut(4000, errOrigin)},
	}}
	r, other := open(t, c, o.Data, o), open(t, c, o.Data, o)
	want(t, r, o.Data)
	want(t, other, o.Data)
	wantCalls(t, o, 0, 1000, 2000, 2000, 3000, 4000)

	changed := &Origin{Data: Random(10, size), Plan: [][]Fault{{Cut(1000, io.EOF)}, {Announce(size + 1)}}}
	got, err := attempt(t, c, changed.Data, changed.Fetch)
	wantFailure(t, got, changed.Data[:1000], err, cache.ErrSize)
}

func testGiveUp(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(11, size), Plan: slices.Repeat([][]Fault{{Cut(1000, errOrigin)}}, 6)}
	got, err := attempt(t, c, o.Data, o.Fetch)
	wantFailure(t, got, o.Data[:1000], err, errOrigin)
	if len(got) != 1000 {
		t.Errorf("saw %d bytes before the pauses between the attempts", len(got))
	}
	wantCalls(t, o, 0, 1000, 1000, 1000, 1000, 1000)
	synctest.Wait()
	want(t, open(t, c, o.Data, o), o.Data)
}

func testUnknownSize(t *testing.T, c *cache.Cache) {
	gate := make(chan struct{})
	o := &Origin{Data: Random(12, size), Plan: [][]Fault{{Announce(-1), Hold(1000, gate)}}}
	b := Blob(o.Data)
	b.Size = -1
	r, err := c.Open(t.Context(), b, o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Size() != -1 {
		t.Errorf("size %d before the end", r.Size())
	}
	got := make([]byte, 2000)
	n, err := r.Read(got)
	if n != 999 || err != nil {
		t.Errorf("%d bytes, %v; want all but the newest", n, err)
	}
	close(gate)
	want(t, r, o.Data[999:])
	if r.Size() != size {
		t.Errorf("size %d in the end", r.Size())
	}
}

func testEmpty(t *testing.T, c *cache.Cache) {
	o := &Origin{}
	want(t, open(t, c, nil, o), nil)
	synctest.Wait()
	warm := open(t, c, nil, o)
	wantSource(t, warm, cache.SourceDisk)
	want(t, warm, nil)
	// An empty answer for a blob that is not empty must not look complete.
	got, err := attempt(t, c, Random(13, 10), o.Fetch)
	wantFailure(t, got, nil, err, cache.ErrCorrupt)
}

func testSha512(t *testing.T, c *cache.Cache) {
	o := &Origin{Data: Random(14, size), Plan: [][]Fault{{Flip(5)}}}
	b := cache.Blob{Digest: digest.SHA512.FromBytes(o.Data), Size: size}
	for _, wanted := range []error{cache.ErrCorrupt, nil} {
		r, err := c.Open(t.Context(), b, o.Fetch)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if !errors.Is(err, wanted) {
			t.Errorf("got %v, want %v", err, wanted)
		}
		synctest.Wait()
	}
	if n, ok := c.Stat(b.Digest); !ok || n != size {
		t.Errorf("stat: %d, %v", n, ok)
	}
}
