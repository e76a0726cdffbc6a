package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

func wantBytes(t *testing.T, c *cache.Cache, p []byte) {
	t.Helper()
	got, err := c.Bytes(t.Context(), cachetest.Blob(p).Digest, 1<<20)
	if err != nil || !bytes.Equal(got, p) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestPutAndBytes(t *testing.T) {
	path := t.TempDir()
	p := cachetest.Random(40, 5000)
	b := cachetest.Blob(p)
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		if _, err := c.Bytes(t.Context(), b.Digest, 1<<20); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("before put: %v", err)
		}
		for want, bad := range map[error]cache.Blob{
			cache.ErrSize:    {Digest: b.Digest, Size: 4999},
			cache.ErrCorrupt: cachetest.Blob([]byte("other")),
			cache.ErrDigest:  {Digest: "sha256:no", Size: -1},
		} {
			if want == cache.ErrCorrupt {
				bad.Size = -1
			}
			if err := c.Put(t.Context(), bad, p); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		if err := c.Put(t.Context(), b, p); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, c, p)
		if _, err := c.Bytes(t.Context(), b.Digest, 4999); !errors.Is(err, cache.ErrTooLarge) {
			t.Errorf("above the limit: %v", err)
		}
		o := &cachetest.Origin{Data: p}
		r := open(t, c, o)
		if r.Source() != cache.SourceMemory || r.Size() != 5000 {
			t.Errorf("source %s, size %d", r.Source(), r.Size())
		}
		if _, err := r.Seek(-10, io.SeekEnd); err != nil {
			t.Error(err)
		}
		want(t, r, p[4990:])
		wantCalls(t, o)
		if n, ok := c.Stat(b.Digest); !ok || n != 5000 {
			t.Errorf("stat %d, %v", n, ok)
		}
	})
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		if _, err := c.Bytes(t.Context(), b.Digest, 4999); !errors.Is(err, cache.ErrTooLarge) {
			t.Errorf("above the limit, from disk: %v", err)
		}
		wantBytes(t, c, p) // outlives the process
		if err := c.Delete(t.Context(), b.Digest); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Bytes(t.Context(), b.Digest, 1<<20); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("after delete: %v", err)
		}
	})
}

// TestBytesVerifies changes a small blob on disk, and also one that is marked as synced.
func TestBytesVerifies(t *testing.T) {
	path := t.TempDir()
	p := cachetest.Random(41, 5000)
	b := cachetest.Blob(p)
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		if err := c.Put(t.Context(), b, p); err != nil {
			t.Fatal(err)
		}
	})
	name := path + "/blobs/sha256/" + b.Digest.Encoded()[:2] + "/" + b.Digest.Encoded()
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o444); err != nil {
		t.Fatal(err)
	}
	bubble(t, disk.Options{Path: path}, func(t *testing.T, c *cache.Cache) {
		if _, err := c.Bytes(t.Context(), b.Digest, 1<<20); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if _, ok := c.Stat(b.Digest); ok {
			t.Error("wrong bytes are still held")
		}
	})
}

// TestPutSurvivesDisk keeps in memory what the disk does not take.
func TestPutSurvivesDisk(t *testing.T) {
	for _, op := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpPublish} {
		f := &fault{op: op, err: errDisk}
		bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
			p := cachetest.Random(42, 100)
			if err := c.Put(t.Context(), cachetest.Blob(p), p); err != nil {
				t.Error(err)
			}
			wantBytes(t, c, p)
			if n := counted(t, c, "dray_cache_degraded_total", ""); n != 1 {
				t.Errorf("counted %v times", n)
			}
		})
	}
	f := &fault{op: disk.OpRead, err: errDisk}
	bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(43, 100)}
		want(t, open(t, c, o), o.Data)
		// The reader above may have dropped the blob already.
		if _, err := c.Bytes(t.Context(), cachetest.Blob(o.Data).Digest, 1000); !errors.Is(err, errDisk) && !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

// TestMemoryIsBounded counts bytes, not objects.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{MemoryBytes: 100_000}, disk.Options{})
		for i := range 50 {
			p := cachetest.Random(byte(i), 5000)
			if err := c.Put(t.Context(), cachetest.Blob(p), p); err != nil {
				t.Fatal(err)
			}
			if n := counted(t, c, "dray_cache_memory_bytes", ""); n > 100_000 || n < float64(5000*min(i+1, 18)) {
				t.Fatalf("%v bytes in memory after %d objects", n, i+1)
			}
		}
		large := cachetest.Random(99, 50_000)
		if err := c.Put(t.Context(), cachetest.Blob(large), large); err != nil {
			t.Fatal(err)
		}
		o := &cachetest.Origin{Data: large}
		if r := open(t, c, o); r.Source() != cache.SourceDisk {
			t.Errorf("an object of half the memory comes from %s", r.Source())
		}
		first := &cachetest.Origin{Data: cachetest.Random(0, 5000)}
		if r := open(t, c, first); r.Source() != cache.SourceDisk {
			t.Errorf("the least recently used object comes from %s", r.Source())
		}
	})
}

// TestCallerOnlyBoundsItself cancels one of two callers, before and after the origin answers.
func TestCallerOnlyBoundsItself(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		headers, bodies := make(chan struct{}), make(chan struct{})
		o := &cachetest.Origin{Data: cachetest.Random(44, size), Plan: [][]cachetest.Fault{{cachetest.Hold(1000, bodies)}}}
		origin := cachetest.Gated(headers, o.Fetch)
		impatient, leave := context.WithCancelCause(t.Context())
		failed := make(chan error)
		go func() {
			_, err := c.Open(impatient, cachetest.Blob(o.Data), origin)
			failed <- err
		}()
		synctest.Wait()
		stays := make(chan *cache.Reader)
		go func() {
			r, err := c.Open(t.Context(), cachetest.Blob(o.Data), origin)
			if err != nil {
				t.Error(err)
			}
			stays <- r
		}()
		synctest.Wait()
		why := errors.New("client has gone")
		leave(why)
		if err := <-failed; !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		close(headers)
		r := <-stays
		defer r.Close()
		second, cancel := context.WithCancel(t.Context())
		joined, err := c.Open(second, cachetest.Blob(o.Data), origin)
		if err != nil {
			t.Fatal(err)
		}
		defer joined.Close()
		time.AfterFunc(time.Second, cancel)
		if got, err := io.ReadAll(joined); len(got) != 1000 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		close(bodies)
		want(t, r, o.Data)
		wantCalls(t, o, 0)
	})
}

// TestStall checks that a flight ends only if it makes no progress for StallTimeout, however long
// all of it takes.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{StallTimeout: 10 * time.Second}, disk.Options{})
		silent := func(ctx context.Context, _ int64) (cache.Stream, error) {
			<-ctx.Done()
			return cache.Stream{}, fmt.Errorf("request: %w", ctx.Err())
		}
		begin := time.Now()
		_, err := c.Open(t.Context(), cachetest.Blob([]byte("x")), silent)
		if !errors.Is(err, cache.ErrStalled) || time.Since(begin) != 10*time.Second {
			t.Errorf("no headers: %v after %v", err, time.Since(begin))
		}

		slow := &cachetest.Origin{Data: cachetest.Random(45, 100), Chunk: 1}
		begin = time.Now()
		origin := func(ctx context.Context, from int64) (cache.Stream, error) {
			s, err := slow.Fetch(ctx, from)
			s.Body = dripping{s.Body}
			return s, err
		}
		r, err := c.Open(t.Context(), cachetest.Blob(slow.Data), origin)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want(t, r, slow.Data)
		if d := time.Since(begin); d < 100*9*time.Second {
			t.Errorf("took %v", d)
		}
		wantCalls(t, slow, 0)
	})
}

// TestStallWhileSkipping resumes at an origin that sends the whole blob again. Skipping the known
// bytes takes far longer than the timeout.
func TestStallWhileSkipping(t *testing.T) {
	p := cachetest.Random(47, 100_000)
	for name, c := range map[string]struct {
		plan  [][]cachetest.Fault
		calls []int64
	}{
		"slow":  {plan: [][]cachetest.Fault{{cachetest.Cut(99_999, io.ErrUnexpectedEOF)}, {cachetest.Whole()}}, calls: []int64{0, 99_999}},
		"cut":   {plan: [][]cachetest.Fault{{cachetest.Cut(90_000, io.ErrUnexpectedEOF)}, {cachetest.Whole(), cachetest.Cut(50_000, io.EOF)}}, calls: []int64{0, 90_000, 90_000}},
		"still": {plan: [][]cachetest.Fault{{cachetest.Cut(90_000, io.ErrUnexpectedEOF)}, {cachetest.Whole(), cachetest.Stall(50_000)}}, calls: []int64{0, 90_000, 90_000}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cc, _ := cachetest.Start(t, cache.Options{StallTimeout: 10 * time.Second}, disk.Options{})
				o := &cachetest.Origin{Data: p, Chunk: 1000, Pace: 1000, Plan: c.plan}
				r, err := cc.Open(t.Context(), cachetest.Blob(p), o.Fetch)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				want(t, r, p)
				wantCalls(t, o, c.calls...)
				if n := o.Unclosed(); n != 0 {
					t.Errorf("%d bodies left open", n)
				}
			})
		})
	}
}

// TestResumesAreCountedAnew checks that MaxResumes does not bound a fetch that gets enough bytes
// between two resumptions.
func TestResumesAreCountedAnew(t *testing.T) {
	const gain = 32 << 20
	for _, tc := range []struct {
		each, whole int64
		calls       int
	}{{gain, 4*gain + 100, 5}, {gain - 1, 4 * gain, 2}} {
		c, _ := cachetest.Start(t, cache.Options{MaxResumes: 1}, disk.Options{})
		p := cachetest.Random(48, int(tc.whole))
		calls := 0
		origin := func(_ context.Context, from int64) (cache.Stream, error) {
			calls++
			left := p[from:]
			body := io.MultiReader(bytes.NewReader(left[:min(tc.each, int64(len(left)))]), iotest.ErrReader(io.ErrUnexpectedEOF))
			return cache.Stream{Body: io.NopCloser(body), Size: tc.whole}, nil
		}
		r, err := c.Open(t.Context(), cachetest.Blob(p), origin)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if right := tc.each == gain; right != (err == nil && bytes.Equal(got, p)) || calls != tc.calls {
			t.Errorf("breaks after %d bytes each time: %d bytes, %v, %d requests", tc.each, len(got), err, calls)
		}
		r.Close()
	}
}

// dripping gives a few bytes every nine seconds, and the end without a delay.
type dripping struct{ io.ReadCloser }

func (d dripping) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if n > 0 {
		time.Sleep(9 * time.Second) // in a bubble
	}
	return n, err
}

// TestFirstByteAtOnce has a reader see each piece soon after it has arrived.
func TestFirstByteAtOnce(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(46, 10_000), Chunk: 1000}
		origin := func(ctx context.Context, from int64) (cache.Stream, error) {
			s, err := o.Fetch(ctx, from)
			s.Body = dripping{s.Body}
			return s, err
		}
		r, err := c.Open(t.Context(), cachetest.Blob(o.Data), origin)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		begin := time.Now()
		for i := range 9 {
			if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			late := time.Since(begin) - time.Duration(i+1)*9*time.Second
			if late > 5*time.Millisecond {
				t.Errorf("piece %d seen %v late", i, late)
			}
		}
	})
}

// TestShutdown checks that Close cancels the flights and waits for them, and that the cache still
// serves blobs from disk.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cachetest.Start(t, cache.Options{}, disk.Options{})
		held := &cachetest.Origin{Data: cachetest.Random(47, size)}
		want(t, open(t, c, held), held.Data)
		synctest.Wait()
		o := &cachetest.Origin{Data: cachetest.Random(48, size), Plan: [][]cachetest.Fault{{cachetest.Stall(1000)}}}
		r := open(t, c, o)
		stop()
		if got, err := io.ReadAll(r); !errors.Is(err, cache.ErrClosed) || len(got) > 1000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if o.Unclosed() != 0 {
			t.Error("the body of a cancelled flight is open")
		}
		want(t, open(t, c, held), held.Data)
		wantCalls(t, held, 0)
		direct := open(t, c, o)
		if direct.Source() != cache.SourceDirect {
			t.Errorf("source %s after the end", direct.Source())
		}
		want(t, direct, o.Data)
	})
}

func TestBadDigest(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		for _, d := range []digest.Digest{"", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../x"} {
			b := cache.Blob{Digest: d, Size: -1}
			o := &cachetest.Origin{}
			if _, err := c.Open(t.Context(), b, o.Fetch); !errors.Is(err, cache.ErrDigest) {
				t.Errorf("open %q: %v", d, err)
			}
			if len(o.Calls()) != 0 {
				t.Errorf("the origin was asked for %q", d)
			}
			if _, ok := c.Stat(d); ok {
				t.Errorf("%q is held", d)
			}
		}
	})
}
