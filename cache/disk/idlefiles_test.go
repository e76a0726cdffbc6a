package disk

import (
	"errors"
	"io"
	"os"
	"testing"
)

// TestIdleFiles has readers open a blob after others. Readers at the same time have files of their
// own. An idle file of a blob that was removed, by dray or by another program, is not used again.
func TestIdleFiles(t *testing.T) {
	d := opened(t, Options{})
	data := random(1, 100_000)
	dg, err := store(d, data)
	if err != nil {
		t.Fatal(err)
	}
	get := func() *Blob {
		t.Helper()
		b, err := d.Open(t.Context(), dg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil || string(got) != string(data) {
			t.Fatalf("%d bytes or others, %v", len(got), err)
		}
		return b
	}
	stays, first := get(), get()
	file := first.File()
	if stays.File() == file {
		t.Error("two readers have one file")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second, third := get(), get()
	if second.File() != file || third.File() == file || third.File() == stays.File() {
		t.Error("the file that a reader has left is not used once")
	}
	for _, b := range []*Blob{stays, third, second, second} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	idle := get()
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if err := d.root.Remove(validPath(dg)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), dg); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob whose file is gone: %v", err)
	}
	if len(d.files.files) != 0 {
		t.Errorf("%d files are idle", len(d.files.files))
	}
}

// TestIdleFilesAreBounded has more readers leave at once than files may be idle, and the blob
// deleted meanwhile. The next reader gets the new file, and Close leaves none.
func TestIdleFilesAreBounded(t *testing.T) {
	d := opened(t, Options{})
	data := random(2, 1000)
	dg, err := store(d, data)
	if err != nil {
		t.Fatal(err)
	}
	var readers []*Blob
	for range maxIdleFiles + 5 {
		b, err := d.Open(t.Context(), dg)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, b)
	}
	for _, b := range readers[1:] {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(d.files.files); n != maxIdleFiles {
		t.Errorf("%d files are idle", n)
	}
	if err := d.Delete(t.Context(), dg); err != nil {
		t.Fatal(err)
	}
	if _, err := store(d, data); err != nil {
		t.Fatal(err)
	}
	b, err := d.Open(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	was, err1 := readers[0].File().Stat()
	is, err2 := b.File().Stat()
	if err := errors.Join(err1, err2, b.Close(), readers[0].Close()); err != nil || os.SameFile(was, is) {
		t.Errorf("a new reader has the file of the deleted blob; %v", err)
	}
	if n := len(d.files.files); n != 1 {
		t.Errorf("%d files are idle, not the one of the new blob", n)
	}
	if err := d.Close(); err != nil || len(d.files.files) != 0 {
		t.Errorf("%d files are left, %v", len(d.files.files), err)
	}
}
