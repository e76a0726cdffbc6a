package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// reopen opens the directory again, as the next process does.
func reopen(t *testing.T, d *Dir, suddenly bool) *Dir {
	t.Helper()
	if suddenly { // nothing is done in order: only the lock goes, as it does with a process
		if err := d.lock.Close(); err != nil {
			t.Fatal(err)
		}
	} else if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Open(Options{Path: d.opts.Path, MaxBytes: d.opts.MaxBytes, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	return next
}

// The next process can go on writing a resumable ingest, and so can the one after that, whether or
// not the process before it ended in order. The digest is that of all bytes.
func TestKeptIngest(t *testing.T) {
	for _, suddenly := range []bool{false, true} {
		d := opened(t, Options{MaxBytes: 16 << 20})
		p := random(1, 3<<20)
		in, err := d.CreateResumable(t.Context(), "abc", []byte("a\nnote"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.CreateResumable(t.Context(), "abc", nil); err == nil {
			t.Error("two ingests have one key")
		}
		for at := 0; at < len(p); at += 1 << 20 {
			if _, err := in.Write(p[at : at+1<<20]); err != nil {
				t.Fatal(err)
			}
			if !suddenly {
				if err := in.Suspend(); err != nil {
					t.Fatal(err)
				}
			}
			d = reopen(t, d, suddenly)
			left := d.Recover()
			if len(left) != 1 || left[0].Key != "abc" || string(left[0].Note) != "a\nnote" || left[0].Ingest == nil || left[0].Digest != "" || len(d.Recover()) != 0 {
				t.Fatalf("left are %+v", left)
			}
			in = left[0].Ingest
			if in.Size() != int64(at+1<<20) || d.reserved != blocks(in.Size()) || d.pending != 0 {
				t.Fatalf("%d bytes are there, %d reserved, %d pending", in.Size(), d.reserved, d.pending)
			}
		}
		b, err := in.Commit(t.Context(), digest.FromBytes(p))
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		d = reopen(t, d, suddenly)
		left := d.Recover()
		if len(left) != 1 || left[0].Digest != digest.FromBytes(p) || left[0].Size != int64(len(p)) || left[0].Ingest != nil {
			t.Fatalf("left are %+v", left)
		}
		if got := content(t, d, p); !bytes.Equal(got, p) {
			t.Error("other bytes")
		}
		if d.makeRoom(blocks(int64(len(p))), 1) {
			t.Error("a kept blob can be evicted")
		}
		for _, unless := range []Unless{UnlessInUse, UnlessNeeded} {
			if err := d.Purge(t.Context(), digest.FromBytes(p), unless); !errors.Is(err, ErrInUse) {
				t.Errorf("a kept blob can be purged: %v", err)
			}
		}
		if err := d.Forget("abc"); err != nil {
			t.Fatal(err)
		}
		if !d.makeRoom(blocks(int64(len(p))), 1) {
			t.Error("a forgotten blob cannot be evicted")
		}
		if files, err := os.ReadDir(filepath.Join(d.opts.Path, "ingest")); err != nil || len(files) > 0 {
			t.Errorf("left behind: %v %v", files, err)
		}
	}
}

func content(t *testing.T, d *Dir, p []byte) []byte {
	t.Helper()
	b, err := d.Open(t.Context(), digest.FromBytes(p))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, b.Size())
	if _, err := b.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return got
}

// Files in ingest/ that make no sense after a crash are removed, and keep no blob from being
// evicted.
func TestKeptNonsense(t *testing.T) {
	d := opened(t, Options{})
	in, err := d.CreateResumable(t.Context(), "good", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("good")); err != nil {
		t.Fatal(err)
	}
	none := digest.FromString("never there")
	for name, text := range map[string]string{
		"orphan.part": "bytes", "early.note": "\n", "torn.note": "no line", "torn.part": "bytes", "1": "bytes", "lost.note": string(none) + "\n", "odd.note": "sha1:00\n",
		"b a d.note": "\n", "b a d.part": "x", ".note": "\n", ".part": "x", "long.note": string(make([]byte, maxNote+2000)),
	} {
		if err := os.WriteFile(filepath.Join(d.opts.Path, "ingest", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = reopen(t, d, true)
	if left := d.Recover(); len(left) != 1 || left[0].Key != "good" {
		t.Errorf("left are %+v", left)
	}
	files, _ := os.ReadDir(filepath.Join(d.opts.Path, "ingest"))
	if len(files) != 2 || len(d.claimed) != 0 {
		t.Errorf("%v, %v", files, d.claimed)
	}
	for _, key := range []string{"", "a/b", "..", "a.b", "ä"} {
		if _, err := d.CreateResumable(t.Context(), key, nil); !errors.Is(err, ErrKey) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// A resumable ingest that is aborted leaves nothing.
func TestKeptAborted(t *testing.T) {
	d := opened(t, Options{})
	for _, p := range []string{"", "some bytes"} {
		in, err := d.CreateResumable(t.Context(), "abc", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if err := in.Abort(); err != nil {
			t.Fatal(err)
		}
		files, _ := os.ReadDir(filepath.Join(d.opts.Path, "ingest"))
		if len(files) != 0 || d.reserved != 0 {
			t.Errorf("%v, %d reserved", files, d.reserved)
		}
	}
}
