package cache_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

func receive(t *testing.T, c *cache.Cache) *cache.Upload {
	t.Helper()
	u, err := c.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// followed reads a follower to its end, in the background.
type followed struct {
	mu  sync.Mutex
	got []byte
	err error
	end chan struct{}
}

func follow(u *cache.Upload) *followed {
	f := &followed{end: make(chan struct{})}
	r := u.Follow()
	go func() {
		defer close(f.end)
		defer r.Close()
		buf := make([]byte, 10_000)
		for {
			n, err := r.Read(buf)
			f.mu.Lock()
			f.got = append(f.got, buf[:n]...)
			f.err = err
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return f
}

func (f *followed) want(t *testing.T, p []byte, err error) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !bytes.Equal(f.got, p) || !errors.Is(f.err, err) {
		t.Errorf("follower has %d bytes, equal %v, error %v; want %d bytes and %v", len(f.got), bytes.Equal(f.got, p), f.err, len(p), err)
	}
}

func TestUpload(t *testing.T) {
	for _, durable := range []bool{false, true} {
		bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
			p := cachetest.Random(30, size)
			dg := digest.FromBytes(p)
			u := receive(t, c)
			early := follow(u)
			if n, err := u.Write(p[:1000]); n != 1000 || err != nil {
				t.Fatal(n, err)
			}
			synctest.Wait()
			early.want(t, p[:999], nil) // all but the newest byte
			broken := io.MultiReader(bytes.NewReader(p[1000:500_000]), iotest.ErrReader(errDisk))
			if n, err := u.ReadFrom(broken); n != 499_000 || !errors.Is(err, errDisk) {
				t.Fatal(n, err)
			}
			if u.Size() != 500_000 {
				t.Errorf("size %d after an interrupted request", u.Size())
			}
			late := follow(u)
			if _, err := u.ReadFrom(bytes.NewReader(p[u.Size():])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // in a bubble: wake-ups are delayed a little
			synctest.Wait()
			early.want(t, p[:size-1], nil)
			late.want(t, p[:size-1], nil)
			b, err := u.Commit(t.Context(), dg)
			if err != nil || b != (cache.Blob{Digest: dg, Size: size}) {
				t.Fatal(b, err)
			}
			if durable {
				release, err := c.Retain(t.Context(), dg)
				if err != nil {
					t.Fatal(err)
				}
				release()
			}
			synctest.Wait()
			early.want(t, p, io.EOF)
			late.want(t, p, io.EOF)
			if err := c.Delete(t.Context(), dg); err != nil {
				t.Fatal(err)
			}
			after := follow(u) // from the blob the upload holds
			<-after.end
			after.want(t, p, io.EOF)
			u.Abort(errDisk) // does nothing
			if _, err := u.Write(p); !errors.Is(err, cache.ErrClosed) {
				t.Errorf("write after commit: %v", err)
			}
			u.Close()
			closed := follow(u)
			<-closed.end
			closed.want(t, nil, cache.ErrClosed)
		})
	}
}

// TestPushThenPull checks that an uploaded blob is on disk, and is not evicted until the upload is
// closed.
func TestPushThenPull(t *testing.T) {
	bubble(t, disk.Options{MaxBytes: 5 << 20}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: cachetest.Random(31, 3<<20)}
		u := receive(t, c)
		if _, err := u.Write(o.Data); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Commit(t.Context(), cachetest.Blob(o.Data).Digest); err != nil {
			t.Fatal(err)
		}
		other := &cachetest.Origin{Data: cachetest.Random(32, 3<<20)}
		r := open(t, c, other)
		want(t, r, other.Data)
		if r.Source() != cache.SourceDirect {
			t.Errorf("a pinned blob had to go: source %s", r.Source())
		}
		want(t, open(t, c, o), o.Data)
		wantCalls(t, o)
	})
}

func TestUploadFails(t *testing.T) {
	p := cachetest.Random(33, size)
	for name, test := range map[string]struct {
		end func(t *testing.T, u *cache.Upload) error
		err error
	}{
		"Mismatch": {func(t *testing.T, u *cache.Upload) error {
			_, err := u.Commit(t.Context(), digest.FromString("other"))
			if !errors.Is(err, cache.ErrCorrupt) {
				t.Errorf("commit: %v", err)
			}
			if _, err := u.Commit(t.Context(), digest.FromBytes(p)); !errors.Is(err, cache.ErrClosed) {
				t.Errorf("commit again: %v", err)
			}
			return err
		}, cache.ErrCorrupt},
		"Abort":   {func(_ *testing.T, u *cache.Upload) error { u.Abort(errDisk); return nil }, errDisk},
		"NoCause": {func(_ *testing.T, u *cache.Upload) error { u.Abort(nil); u.Abort(errDisk); return nil }, cache.ErrAborted},
		"Close":   {func(_ *testing.T, u *cache.Upload) error { return u.Close() }, cache.ErrAborted},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				u := receive(t, c)
				all := []*followed{follow(u), follow(u), follow(u)}
				if _, err := u.Write(p); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				test.end(t, u)
				for _, f := range all {
					<-f.end
					f.want(t, p[:size-1], test.err)
				}
				for _, d := range []digest.Digest{digest.FromBytes(p), digest.FromString("other")} {
					if _, ok := c.Stat(d); ok {
						t.Errorf("%s is held", d)
					}
				}
				if _, err := u.Write(p); !errors.Is(err, cache.ErrClosed) {
					t.Errorf("write: %v", err)
				}
			})
		})
	}
}

func TestFollowerCloses(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		u := receive(t, c)
		r := u.Follow()
		done := make(chan error)
		go func() {
			_, err := r.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		r.Close()
		r.Close()
		if err := <-done; !errors.Is(err, cache.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	})
}

// TestUploadFull checks that an upload returns ErrFull, and goes on when there is room again.
func TestUploadFull(t *testing.T) {
	bubble(t, disk.Options{MaxBytes: 5 << 20}, func(t *testing.T, c *cache.Cache) {
		held := receive(t, c)
		other := cachetest.Random(34, 3<<20)
		if _, err := held.Write(other); err != nil {
			t.Fatal(err)
		}
		p := cachetest.Random(35, 2<<20)
		u := receive(t, c)
		var wrote int
		for chunk := range slices.Chunk(p, 256<<10) {
			n, err := u.Write(chunk)
			wrote += n
			if err != nil {
				if !errors.Is(err, cache.ErrFull) {
					t.Fatal(err)
				}
				break
			}
		}
		if wrote != 1<<20 || u.Size() != 1<<20 {
			t.Errorf("%d bytes written, size %d, with 1 MiB free", wrote, u.Size())
		}
		held.Abort(nil)
		if _, err := u.Write(p[u.Size():]); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Commit(t.Context(), digest.FromBytes(p)); err != nil {
			t.Error(err)
		}
	})
	broken := &fault{op: disk.OpCreate, err: errDisk}
	bubble(t, disk.Options{Fault: broken.hit}, func(t *testing.T, c *cache.Cache) {
		if _, err := c.Receive(t.Context()); !errors.Is(err, errDisk) {
			t.Errorf("got %v", err)
		}
	})
}
