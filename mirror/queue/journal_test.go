package queue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

// TestTorn cuts a journal at every byte: whatever was written as a whole before is there.
func TestTorn(t *testing.T) {
	q, _ := opened(t, Options{})
	path := filepath.Join(q.opts.Directory, journalName)
	var ends []int // of the file after each push
	for i := range 4 {
		added(t, q, push("a", "", fmt.Sprint(i)))
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(info.Size()))
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		want := 0
		for _, end := range ends {
			if n >= end {
				want++
			}
		}
		p, err := replay(bytes.NewReader(whole[:n]))
		if err != nil || p.damaged != 0 || len(p.entries) != want {
			t.Fatalf("cut at %d: %d entries, want %d; %d damaged, %v", n, len(p.entries), want, p.damaged, err)
		}
	}
	for i := range whole { // one bit falls: at most one record is lost, or two where a line break is
		bad := bytes.Clone(whole)
		bad[i] ^= 4
		p, err := replay(bytes.NewReader(bad))
		if err != nil || p.damaged == 0 && i != len(bad)-1 || len(p.entries) < 2 {
			t.Fatalf("bit of byte %d: %d entries, %d damaged, %v", i, len(p.entries), p.damaged, err)
		}
	}
}

// A damaged journal is kept aside, and what can be read goes on.
func TestDamaged(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "", "one"), push("a", "", "two"))
	path := filepath.Join(q.opts.Directory, journalName)
	whole, _ := os.ReadFile(path)
	bad := bytes.Replace(whole, []byte(`"reference":"sha`), []byte(`"reference":"xxx`), 1)
	if err := os.WriteFile(path, append(bad, "torn"...), 0o600); err != nil {
		t.Fatal(err)
	}
	q, _ = reopened(t, q)
	if len(names(q)) != 1 {
		t.Errorf("the queue has %q", names(q))
	}
	if aside, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.HasPrefix(aside, bad) {
		t.Errorf("the damaged journal is not kept: %v", err)
	}
	added(t, q, push("a", "", "three"))
	q, _ = reopened(t, q)
	if len(names(q)) != 2 {
		t.Errorf("the queue has %q", names(q))
	}
	whole, _ = os.ReadFile(path)
	worse := append(whole, "torn again\n"...)
	if err := os.WriteFile(path, worse, 0o600); err != nil {
		t.Fatal(err)
	}
	reopened(t, q)
	if aside, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.HasPrefix(aside, bad) {
		t.Errorf("a second damage removes the first damaged journal: %v", err)
	}
	if aside, err := os.ReadFile(path + ".damaged.2"); err != nil || !bytes.Equal(aside, worse) {
		t.Errorf("the second damaged journal is not kept: %v", err)
	}
}

// A journal of a later version stops the start, untouched.
func TestLaterVersion(t *testing.T) {
	dir := t.TempDir()
	line, err := record{Op: opVersion, Version: journalVersion + 1}.line()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, journalName), line, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Directory: dir, Hold: (&holder{}).hold}); !errors.Is(err, errVersion) {
		t.Error(err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, journalName)); err != nil || !bytes.Equal(now, line) {
		t.Error("it was changed")
	}
}

// FuzzJournal: whatever lies on the disk is read to its end, and what comes of it is written and
// read again alike.
func FuzzJournal(f *testing.F) {
	line := func(r record) []byte { b, _ := r.line(); return b }
	p := push("a", "v1", "text")
	whole := bytes.Join([][]byte{
		line(record{Op: opVersion, Version: 1, ID: 7}), line(record{Op: opPush, Entry: &Entry{ID: 8, Push: p}}), line(record{Op: opPush, Entry: &Entry{ID: 9, Push: p, State: Failed}}),
		line(record{Op: opFailed, ID: 8, Error: "no", Attempts: 3}), line(record{Op: opRetry, ID: 8}), line(record{Op: opDone, ID: 9}),
	}, nil)
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(bytes.Replace(whole, []byte("\n"), []byte("\x00\x00\n\n"), -1))
	f.Add(append(line(record{Op: "other"}), line(record{Op: opPush})...))
	f.Add(append(line(record{Op: opPush, Entry: &Entry{ID: 1}}), line(record{Op: opFailed, ID: 99})...))
	f.Add([]byte("00000000 {}\n\n\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		past, err := replay(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, errVersion) {
				t.Fatal(err)
			}
			return
		}
		for id, e := range past.entries {
			if id != e.ID || id > past.lastID || e.Digest.Validate() != nil || e.State != Waiting && e.State != Failed {
				t.Fatalf("%d of %d: %+v", id, past.lastID, e)
			}
		}
		var out bytes.Buffer
		if n, err := past.write(&out); err != nil || n != int64(out.Len()) {
			t.Fatal(n, err)
		}
		again, err := replay(&out)
		past.damaged = 0
		if err != nil || !same(past, again) {
			t.Fatalf("%v\n%+v\n%+v", err, past, again)
		}
	})
}

// same compares what counts: JSON makes no difference between nothing and an empty list, and times
// lose their clock.
func same(a, b contents) bool {
	if a.lastID != b.lastID || a.damaged != b.damaged || len(a.entries) != len(b.entries) {
		return false
	}
	for id, e := range a.entries {
		o, ok := b.entries[id]
		if !ok || !e.Accepted.Equal(o.Accepted) || len(e.Blobs) != len(o.Blobs) || !bytes.Equal(e.Manifest, o.Manifest) {
			return false
		}
		for i := range e.Blobs {
			if e.Blobs[i] != o.Blobs[i] {
				return false
			}
		}
		e.Accepted, e.Blobs, e.Manifest = o.Accepted, o.Blobs, o.Manifest
		if !reflect.DeepEqual(e, o) {
			return false
		}
	}
	return true
}

// On a full disk the queue opens with the old journal, says so, and writes it anew when there is
// room.
func TestOpenOnAFullDisk(t *testing.T) {
	for name, damage := range map[string]string{"intact": "", "damaged": "no record\n"} {
		t.Run(name, func(t *testing.T) {
			q, _ := opened(t, Options{})
			added(t, q, push("a", "v1", "one"), push("a", "v2", "two"))
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(q.opts.Directory, journalName)
			old, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			old = append([]byte(damage), old...)
			if err := os.WriteFile(path, old, 0o600); err != nil {
				t.Fatal(err)
			}
			full := fmt.Errorf("sync: %w", syscall.ENOSPC)
			q, _ = opened(t, Options{Directory: q.opts.Directory, Sync: func() error { return full }})
			wantNames(t, q, "a:v1 one waiting", "a:v2 two waiting")
			if err := q.Check(t.Context()); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("it reports %v", err)
			}
			if err := q.Add(t.Context(), push("a", "v3", "three")); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("a push is accepted: %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
				t.Errorf("the old journal has %d bytes and not %d, %v", len(now), len(old), err)
			}
			if files, err := os.ReadDir(q.opts.Directory); err != nil || len(files) != 1 {
				t.Errorf("beside it: %v, %v", files, err)
			}
			full = nil
			added(t, q, push("a", "v3", "three"))
			if err := q.Check(t.Context()); err != nil {
				t.Errorf("it reports %v", err)
			}
			if aside, err := os.ReadFile(path + ".damaged"); damage != "" && !bytes.Equal(aside, old) {
				t.Errorf("the damaged journal is not kept: %v", err)
			}
			q, _ = reopened(t, q)
			wantNames(t, q, "a:v1 one waiting", "a:v2 two waiting", "a:v3 three waiting")
		})
	}
}

// A disk that fails in another way is most often a wrong mount, and keeps the queue from opening.
func TestOpenOnABrokenDisk(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(t.Context(), Options{Directory: dir, Hold: (&holder{}).hold, Sync: func() error { return syscall.EIO }}); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("it left %v, %v", files, err)
	}
}
