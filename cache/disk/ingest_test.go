package disk

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestGrowingIngest(t *testing.T) {
	d := opened(t, Options{})
	p := random(2, 5<<20)
	for _, dg := range []digest.Digest{digest.FromBytes(p), digest.SHA512.FromBytes(p)} {
		in, err := d.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		for chunk := range slices.Chunk(p, 700_000) {
			at := in.Size()
			if n, err := in.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
			got := make([]byte, len(chunk))
			if _, err := in.ReadAt(got, at); err != nil || !bytes.Equal(got, chunk) {
				t.Fatalf("read while it grows: %v", err)
			}
			wantMissing(t, d, dg)
		}
		if s := d.Stats(); s.Reserved < int64(len(p)) {
			t.Errorf("%d bytes reserved for %d written", s.Reserved, len(p))
		}
		b, err := in.Commit(t.Context(), dg)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Abort(); err != nil {
			t.Errorf("abort after commit: %v", err)
		}
		if _, err := b.ReadAt(make([]byte, 10), 5); err != nil {
			t.Errorf("read after abort: %v", err)
		}
		b.Close()
		if _, ok := d.Stat(dg); !ok {
			t.Errorf("%s is missing", dg)
		}
	}
	if s := d.Stats(); s.Reserved != 0 || d.pending != 0 {
		t.Errorf("stats %+v, pending %d", s, d.pending)
	}
}

func TestDoor(t *testing.T) {
	d := opened(t, Options{})
	p := random(3, 10_000)
	good := digest.FromBytes(p)
	for name, test := range map[string]struct {
		size  int64
		write []byte
		name  digest.Digest
		err   error
	}{
		"Corrupt":     {10_000, append([]byte{p[0] ^ 1}, p[1:]...), good, ErrCorrupt},
		"CorruptLong": {-1, append(slices.Clone(p), 'x'), good, ErrCorrupt},
		"Short":       {10_000, p[:9999], digest.FromBytes(p[:9999]), ErrSize},
		"Overlong":    {9_999, p, good, ErrSize},
		"Name":        {10_000, p, "sha256:no", ErrDigest},
		"Other512":    {10_000, p, digest.SHA512.FromString("x"), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := d.Create(t.Context(), test.size)
			if err != nil {
				t.Fatal(err)
			}
			_, err = in.Write(test.write)
			if err == nil {
				_, err = in.Commit(t.Context(), test.name)
			}
			if !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			for range 2 {
				if err := in.Abort(); err != nil {
					t.Errorf("abort: %v", err)
				}
			}
			if _, err := in.Commit(t.Context(), good); err == nil {
				t.Error("commit after abort succeeds")
			}
			wantMissing(t, d, good)
			sum, unfinished := onDisk(t, d.opts.Path)
			if s := d.Stats(); sum != 0 || unfinished != 0 || s.Bytes != 0 || s.Reserved != 0 {
				t.Errorf("%d bytes in %d unfinished files left, stats %+v", sum, unfinished, s)
			}
		})
	}
}

func TestSameDigestAtOnce(t *testing.T) {
	d := opened(t, Options{MaxBytes: 64 << 20})
	p := random(14, 2<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := store(d, p); err != nil {
					t.Error(err)
				}
				if err := d.Delete(t.Context(), digest.FromBytes(p)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustStore(t, d, p)
	wantBlob(t, d, p)
	if s := d.Stats(); s.Blobs != 1 || s.Bytes != 2<<20 || s.Reserved != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestWriteAt fills blobs out of order: nothing is published before every byte is there and hashed.
func TestWriteAt(t *testing.T) {
	d, err := Open(Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := random(1, 300_000)
	dg := digest.FromBytes(p)
	in, err := d.Create(t.Context(), int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort()
	for _, bad := range []int64{-1, int64(len(p)) - 9} {
		if _, err := in.WriteAt(p[:10], bad); !errors.Is(err, ErrSize) {
			t.Errorf("write at %d: %v", bad, err)
		}
	}
	if _, err := in.WriteAt(p[100_000:], 100_000); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context(), dg); !errors.Is(err, ErrSize) {
		t.Errorf("commit with a gap: %v", err)
	}
	if _, err := in.WriteAt(p[:100_000], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context(), dg); !errors.Is(err, ErrSize) {
		t.Errorf("commit before it is hashed: %v", err)
	}
	if _, held := d.Stat(dg); held {
		t.Error("published")
	}
	for _, to := range []int64{1, 99_999, int64(len(p))} {
		if err := in.Advance(to, make([]byte, 4096)); err != nil || in.Size() != to {
			t.Errorf("advance to %d: at %d, %v", to, in.Size(), err)
		}
	}
	b, err := in.Commit(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, len(p))
	if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("read: %v", err)
	}
}
