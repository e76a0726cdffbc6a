package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"dray/cmd/dray/replace"
)

// Records is the directory below Place.Root that has the records. A record holds whole
// configuration files, which can contain credentials, so only root can read it.
const Records = "/var/lib/dray-setup"

// record lists the files that Write has written for one client, and the directories that it has
// made.
type record struct {
	Files []*entry `json:"files"`
	// Directories are the directories that Write has made, the outermost first.
	Directories []string `json:"directories,omitempty"`
}

// entry describes one file that Write has written.
type entry struct {
	Path    string `json:"path"`
	Existed bool   `json:"existed"`
	// Before is the former content of the file. Content is the content that Write has written.
	Before  string `json:"before,omitempty"`
	Content string `json:"content"`
	Backup  string `json:"backup,omitempty"`
}

func (p Place) recordFile() string { return p.real(filepath.Join(Records, p.Client+".json")) }

// record reads the record. If the file does not exist, the record is empty.
func (p Place) record() (*record, error) {
	r := &record{}
	text, err := os.ReadFile(p.recordFile())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		return nil, fmt.Errorf("the record of what dray setup has written: %w", advise(err))
	}
	return r, nil
}

// save writes the record, or removes it if it lists no file.
func (p Place) save(r *record) error {
	file := p.recordFile()
	if len(r.Files) == 0 {
		err := os.Remove(file)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		_ = os.Remove(filepath.Dir(file)) // fails if the directory has records of other clients
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("no record of what is to be written can be made: %w", advise(err))
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replace.File(file, text, nil, 0o600)
}

// find returns the entry of a file, or nil.
func (r *record) find(path string) *entry {
	for _, e := range r.Files {
		if e.Path == path {
			return e
		}
	}
	return nil
}

// forget removes the entry of a file from the record. It also deletes from the disk each directory
// in r.Directories that is empty, and removes from r.Directories those that no longer exist.
func (r *record) forget(p Place, path string) {
	r.Files = slices.DeleteFunc(r.Files, func(e *entry) bool { return e.Path == path })
	for _, dir := range slices.Backward(slices.Clone(r.Directories)) {
		if err := os.Remove(p.real(dir)); err == nil || errors.Is(err, fs.ErrNotExist) {
			r.Directories = slices.DeleteFunc(r.Directories, func(d string) bool { return d == dir })
		}
	}
}

// before returns the content that a file would have without dray setup, and whether the file would
// exist. onDisk is the present content. The returned content includes edits that somebody has made
// in lines that dray setup did not write. The error is errEdited if somebody has edited lines that
// dray setup wrote, or if the result is malformed.
func (r *record) before(path string, onDisk []byte) (content []byte, exists bool, err error) {
	e := r.find(path)
	switch {
	case onDisk == nil:
		return nil, false, nil
	case e == nil:
		return onDisk, true, nil
	case e.Content == string(onDisk):
		return []byte(e.Before), e.Existed, nil
	case e.Existed && e.Before == string(onDisk): // somebody has restored the former content
		return onDisk, true, nil
	}
	edits, ok := udiff.Merge(udiff.Lines(e.Content, e.Before), udiff.Lines(e.Content, string(onDisk)))
	if !ok {
		return nil, false, errEdited
	}
	text, err := udiff.Apply(e.Content, edits)
	blank := strings.TrimSpace(text) == ""
	if err != nil || !blank && wellFormed(path, []byte(text)) != nil {
		return nil, false, errEdited
	}
	return []byte(text), e.Existed || !blank, nil
}

var errEdited = errors.New("somebody has edited the lines that dray setup wrote; take them out yourself, or put the former content back")

// wellFormed returns an error if a file of a known kind cannot be parsed.
func wellFormed(path string, text []byte) error {
	var doc any
	switch filepath.Ext(path) {
	case ".json":
		return json.Unmarshal(text, &doc)
	case ".toml", ".conf":
		return toml.Unmarshal(text, &doc)
	case ".yaml":
		return yaml.Unmarshal(text, &doc)
	}
	return nil
}
