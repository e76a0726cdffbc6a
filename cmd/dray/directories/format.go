package directories

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// kind is one of the two kinds of directories.
type kind struct {
	name string
	// newest is the number of the format that this program writes. oldest is the lowest number that it
	// can read.
	newest, oldest int
}

// The formats that this program knows. If a directory lacks the file that kind.file names, it is
// new or from an old dray. Such a directory counts as format 1, although format.Number is 0.
var (
	cacheFormat = kind{"cache", 1, 1}
	stateFormat = kind{"state", 1, 1}
)

// file returns the name of the file with the format.
func (k kind) file() string { return k.name + ".format" }

// format is the content of the file that kind.file names. Number is 0 if there is no such file.
type format struct {
	Number int    `json:"format"`
	By     string `json:"by"`              // the version of dray that first wrote this number
	Other  string `json:"other,omitempty"` // the directory of the other kind; empty if both kinds share one
}

// readFormat reads the format of a directory. It returns an error if this program cannot use the
// directory.
func readFormat(dir string, k kind) (format, error) {
	var f format
	path := filepath.Join(dir, k.file())
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil || f.Number < 1 {
		return f, fmt.Errorf("%s does not have the format of the %s directory; if this program used the directory last, delete the file", path, k.name)
	}
	switch {
	case f.Number > k.newest:
		return f, fmt.Errorf("the %s directory %s has format %d, which dray %s wrote, and this dray reads formats up to %d: run dray %[4]s or newer, or restore a backup from before the upgrade into other directories",
			k.name, dir, f.Number, f.By, k.newest)
	case f.Number < k.oldest:
		return f, fmt.Errorf("the %s directory %s has format %d, which dray %s wrote, and this dray reads formats from %d on: start a version in between first, as the changelog says",
			k.name, dir, f.Number, f.By, k.oldest)
	}
	return f, nil
}

// write writes the newest format if the directory does not have it, or if the directory of the
// other kind has moved.
func (f format) write(k kind, dir, other, version string) error {
	if same(dir, other) {
		other = ""
	} else if absolute, err := filepath.Abs(other); err == nil {
		other = absolute
	}
	if f.Number == k.newest && f.Other == other {
		return nil
	}
	next := format{Number: k.newest, By: version, Other: other}
	if f.Number == k.newest {
		next.By = f.By
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, k.file()), append(text, '\n'))
}

// writeSynced replaces a file. When it returns nil, the new content survives a power cut.
func writeSynced(path string, body []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = fill(f, body); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return Sync(filepath.Dir(path))
}

// fill writes a file, syncs it and closes it.
func fill(f *os.File, body []byte) error {
	_, err := f.Write(body)
	return errors.Join(err, f.Sync(), f.Close())
}

// Sync syncs a directory. When it returns nil, the names in the directory survive a power cut.
func Sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
