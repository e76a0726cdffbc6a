package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// file is a file that goes into an archive.
type file struct {
	body []byte
	mode fs.FileMode // permissions, and fs.ModeDir for a directory
	uid  int
}

// tree has files by name. A tar archive also has the directories above them.
type tree map[string]file

func (t tree) add(name string, body []byte)     { t[name] = file{body: body, mode: 0o644} }
func (t tree) program(name string, body []byte) { t[name] = file{body: body, mode: 0o755} }

// names returns the names of all files and of all directories above them, in order. The names of
// directories end with a slash.
func (t tree) names() []string {
	all := map[string]bool{}
	for name, f := range t {
		if f.mode.IsDir() {
			name += "/"
		}
		all[name] = true
		for dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "."; dir = path.Dir(dir) {
			all[dir+"/"] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// tar returns the files as a tar archive. modTime is the time of all files. Each name begins
// with prefix.
func (t tree) tar(prefix string, modTime time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range t.names() {
		f, own := t[strings.TrimSuffix(name, "/")]
		h := &tar.Header{Name: prefix + name, Mode: int64(f.mode.Perm()), Uid: f.uid, Gid: f.uid, Size: int64(len(f.body)), ModTime: modTime, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
			if !own {
				h.Mode = 0o755
			}
			if f.mode&fs.ModeSticky != 0 {
				h.Mode |= 0o1000
			}
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// zip returns the files as a zip archive, for Windows. modTime is the time of all files.
func (t tree) zip(modTime time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: modTime}
		h.SetMode(t[name].mode)
		out, err := w.CreateHeader(h)
		if err == nil {
			_, err = out.Write(t[name].body)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// zipped returns the bytes compressed with gzip. The header has no name and no time.
func zipped(body []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(body)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}
