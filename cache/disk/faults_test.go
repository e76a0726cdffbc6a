package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestVanishedFile(t *testing.T) {
	d := opened(t, Options{})
	p, q := random(16, 5000), random(17, 5000)
	dg, other := mustStore(t, d, p), mustStore(t, d, q)
	if err := os.Remove(file(t, d, dg)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file(t, d, other), 100); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, d, dg)
	wantMissing(t, d, other)
	if s := d.Stats(); s.Bytes != 0 || s.Blobs != 0 {
		t.Errorf("stats %+v", s)
	}
	mustStore(t, d, p)
	if err := os.Remove(file(t, d, dg)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, d, p) // is not taken for held
	wantBlob(t, d, p)
	if err := os.RemoveAll(filepath.Dir(file(t, d, dg))); err != nil { // the whole shard
		t.Fatal(err)
	}
	wantMissing(t, d, dg)
	mustStore(t, d, p)
	wantBlob(t, d, p)
}

func TestFaults(t *testing.T) {
	broken := errors.New("disk is broken")
	for _, test := range []struct {
		op   Op
		err  error
		want error
	}{
		{OpCreate, broken, broken}, {OpWrite, broken, broken}, {OpPublish, broken, broken},
		{OpCreate, syscall.ENOSPC, ErrFull}, {OpWrite, syscall.ENOSPC, ErrFull}, {OpWrite, syscall.EDQUOT, ErrFull},
	} {
		t.Run(string(test.op)+"/"+test.err.Error(), func(t *testing.T) {
			failing := test.op
			d := opened(t, Options{Fault: func(op Op, _ string) error {
				if op == failing {
					return test.err
				}
				return nil
			}})
			p := random(18, 10_000)
			if _, err := store(d, p); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			sum, unfinished := onDisk(t, d.opts.Path)
			if s := d.Stats(); sum != 0 || unfinished != 0 || s.Bytes != 0 || s.Reserved != 0 || d.pending != 0 {
				t.Errorf("%d bytes, %d unfinished, pending %d, stats %+v", sum, unfinished, d.pending, s)
			}
			failing = ""
			mustStore(t, d, p)
			wantBlob(t, d, p)
		})
	}
}

// TestUnlinkFails has a file system that refuses to remove files: the quota still holds.
func TestUnlinkFails(t *testing.T) {
	fail := true
	d := opened(t, Options{MaxBytes: 4 << 20, Fault: func(op Op, _ string) error {
		if op == OpUnlink && fail {
			return fs.ErrPermission
		}
		return nil
	}})
	p, q := random(19, 3<<20), random(20, 3<<20)
	mustStore(t, d, p)
	if _, err := store(d, q); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	wantBlob(t, d, p)
	if err := d.Delete(t.Context(), digest.FromBytes(p)); err == nil {
		t.Error("delete succeeds")
	}
	fail = false
	mustStore(t, d, q)
	wantBlob(t, d, q)
	if s := d.Stats(); s.Bytes != 3<<20 || s.Blobs != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestAbortFails checks that the account still counts a file that cannot be removed.
func TestAbortFails(t *testing.T) {
	d := opened(t, Options{Fault: func(op Op, _ string) error {
		if op == OpUnlink {
			return fs.ErrPermission
		}
		return nil
	}})
	in, err := d.Create(t.Context(), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(random(25, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := in.Abort(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if sum, _ := onDisk(t, d.opts.Path); sum != blockSize || d.Stats().Reserved != 0 {
		t.Errorf("%d bytes on disk, %+v", sum, d.Stats())
	}
}

func TestStrangersAreLeftAlone(t *testing.T) {
	d := opened(t, Options{})
	mustStore(t, d, random(24, 10))
	d.Close()
	for _, name := range []string{"blobs/sha256/ab/readme", "blobs/stray", "blobs/md5/ab/ab", "ingest/17", "ingest/deep/er"} {
		path := filepath.Join(d.opts.Path, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d = opened(t, d.opts)
	running(t, d)
	<-d.contents.scan.done
	if s := d.Stats(); s.Blobs != 1 {
		t.Errorf("stats %+v", s)
	}
	if _, err := os.Stat(filepath.Join(d.opts.Path, "blobs/sha256/ab/readme")); err != nil {
		t.Errorf("a stranger in blobs: %v", err)
	}
	if _, unfinished := onDisk(t, d.opts.Path); unfinished != 0 {
		t.Errorf("%d unfinished files survived", unfinished)
	}
}
