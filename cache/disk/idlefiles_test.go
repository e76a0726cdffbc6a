package disk

import (
	"errors"
	"io"
	"os"
	"testing"
)

// TestIdleFiles has readers open a blob while others read it. Readers at the same time have files
// of their own, and none is open after the last reader.
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
	if _, err := file.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is open after the last reader: %v", err)
	}
	if n := len(d.files.blobs); n != 0 || d.files.idle != 0 {
		t.Errorf("%d blobs and %d files are left", n, d.files.idle)
	}
}

// TestIdleFilesAreBounded has more readers leave at once than files may be idle, and the blob
// deleted meanwhile. Its next readers get its new file.
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
	if d.files.idle != maxIdleFiles {
		t.Errorf("%d files are idle", d.files.idle)
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
	if d.files.idle != 0 {
		t.Errorf("%d files are left", d.files.idle)
	}
}
