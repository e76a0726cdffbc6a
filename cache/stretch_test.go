package cache_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

// stretch reads like the code that sends files: by Stretch where that returns a file, otherwise by
// Read. It also returns the bytes that it read by Stretch.
func stretch(t *testing.T, r *cache.Reader, n int64) (all []byte, stretched int64, err error) {
	t.Helper()
	for int64(len(all)) < n {
		f, more, err := r.Stretch(n - int64(len(all)))
		if err != nil {
			return all, stretched, err
		}
		p := make([]byte, max(more, 1))
		if f != nil {
			got, err := io.ReadFull(f, p)
			p = p[:got]
			if err := r.Passed(int64(got), err); err != nil {
				t.Errorf("a stretch of %d bytes is not there: %v", more, err)
			}
			if stretched += int64(got); err != nil {
				all, p = append(all, p...), make([]byte, 8<<10)
				got, err := r.Read(p)
				if p = p[:got]; got == 0 {
					return all, stretched, err
				}
			}
		} else {
			p = make([]byte, 8<<10)
			got, err := r.Read(p)
			if p = p[:got]; got == 0 {
				return all, stretched, err
			}
		}
		all = append(all, p...)
	}
	return all, stretched, nil
}

// TestStretch takes bytes of a fetch under way from its file, at any offset. It checks that the
// last byte never comes before the digest matches.
func TestStretch(t *testing.T) {
	data := cachetest.Random(60, size)
	for _, from := range []int64{0, 1, 700_000, size - 10} {
		bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
			gate := make(chan struct{})
			o := &cachetest.Origin{Data: data, Chunk: 100_000, Plan: [][]cachetest.Fault{{cachetest.Hold(800_000, gate)}}}
			r := open(t, c, o)
			if _, err := r.Seek(from, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			early := max(0, 800_000-1-from)
			got, n, err := stretch(t, r, early)
			if err != nil || early > 32<<10 && n < early-32<<10 {
				t.Errorf("from %d: %d bytes, %d of them in stretches, %v", from, len(got), n, err)
			}
			close(gate)
			rest, _, err := stretch(t, r, size-from-int64(len(got)))
			if got = append(got, rest...); err != nil || !bytes.Equal(got, data[from:]) {
				t.Errorf("from %d: %d bytes or others, %v", from, len(got), err)
			}
			wantCalls(t, o, 0)
		})
	}
}

func TestStretchWithholds(t *testing.T) {
	data := cachetest.Random(61, size)
	for name, f := range map[string]cachetest.Fault{"corrupt": cachetest.Flip(500_000), "too long": cachetest.Extend([]byte("more"))} {
		t.Run(name, func(t *testing.T) {
			bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
				r := open(t, c, &cachetest.Origin{Data: data, Plan: [][]cachetest.Fault{{f}}})
				got, _, err := stretch(t, r, size)
				if len(got) >= size || !errors.Is(err, cache.ErrCorrupt) && !errors.Is(err, cache.ErrSize) {
					t.Errorf("%d of %d bytes, %v", len(got), size, err)
				}
			})
		})
	}
}

// TestStretchSurvivesDisk checks that Read gives all bytes if there is no file, or no longer one.
func TestStretchSurvivesDisk(t *testing.T) {
	data := cachetest.Random(62, size)
	for name, f := range map[string]*fault{"no file": {op: disk.OpOpen, err: errDisk}, "disk full": {op: disk.OpWrite, after: 4, err: errDisk}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, disk.Options{Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
				got, n, err := stretch(t, open(t, c, &cachetest.Origin{Data: data, Chunk: 50_000}), size)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes or others, %v", len(got), err)
				}
				if f.op == disk.OpOpen && n > 0 {
					t.Errorf("%d bytes from a file that cannot be opened", n)
				}
			})
		})
	}
}

// TestStretchOfBrokenFile checks that a reader goes on with the origin when the file of a held blob
// gives no more bytes, and that the blob is then fetched and kept anew. An error that does not come
// from the file ends the reader.
func TestStretchOfBrokenFile(t *testing.T) {
	data := cachetest.Random(64, size)
	for _, from := range []int64{0, 1000, 600_000} {
		for name, failure := range map[string]error{"truncated": nil, "unreadable": syscall.EIO, "corrupt file system": syscall.EBADMSG} {
			t.Run(name, func(t *testing.T) {
				path := t.TempDir()
				f := &fault{op: disk.OpRead, err: failure}
				f.fixed.Store(true)
				bubble(t, disk.Options{Path: path, Fault: f.hit}, func(t *testing.T, c *cache.Cache) {
					o := &cachetest.Origin{Data: data}
					want(t, open(t, c, o), data)
					synctest.Wait()
					r := open(t, c, o)
					if _, err := r.Seek(from, io.SeekStart); err != nil {
						t.Fatal(err)
					}
					hex := cachetest.Blob(data).Digest.Encoded()
					if err := os.Truncate(path+"/blobs/sha256/"+hex[:2]+"/"+hex, 500_000); err != nil {
						t.Fatal(err)
					}
					f.fixed.Store(failure == nil)
					got, _, err := stretch(t, r, size-from)
					if err != nil || !bytes.Equal(got, data[from:]) {
						t.Errorf("from %d: %d bytes or others, %v", from, len(got), err)
					}
					if n := counted(t, c, "dray_cache_degraded_total", `"read"`); n != 1 {
						t.Errorf("counted %v times", n)
					}
					f.fixed.Store(true)
					want(t, open(t, c, o), data)
					synctest.Wait()
					if r := open(t, c, o); r.Source() != cache.SourceDisk {
						t.Errorf("afterwards it comes from %s", r.Source())
					}
				})
			})
		}
	}
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		o := &cachetest.Origin{Data: data}
		want(t, open(t, c, o), data)
		synctest.Wait()
		if err := open(t, c, o).Passed(10, errDisk); !errors.Is(err, errDisk) {
			t.Errorf("the file is well, and the error %v", err)
		}
	})
}

// TestStretchElsewhere checks that Stretch covers all of a blob on disk, and fails on a closed
// reader.
func TestStretchElsewhere(t *testing.T) {
	data := cachetest.Random(63, size)
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		gate := make(chan struct{})
		o := &cachetest.Origin{Data: data, Plan: [][]cachetest.Fault{{cachetest.Hold(600_000, gate)}}}
		r := open(t, c, o)
		f, _, err := r.Stretch(size)
		if f == nil || err != nil {
			t.Fatalf("%v, %v", f, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("its file reads after the end of the reader: %v", err)
		}
		if f, _, err := r.Stretch(size); f != nil || !errors.Is(err, cache.ErrClosed) {
			t.Errorf("%v, %v", f, err)
		}
		close(gate)
		want(t, open(t, c, o), data)
		r = open(t, c, o)
		if f, n, err := r.Stretch(2 * size); f == nil || n != size || err != nil {
			t.Errorf("on disk: %v, %d, %v", f, n, err)
		}
		want(t, r, data)
	})
}
