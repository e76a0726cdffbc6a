package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"dray/cmd/dray/replace"
)

// Place says where the files of one client are, and where the record of their changes is.
type Place struct {
	// Root is the directory that stands for /.
	Root string
	// Client is the name of the client, and of its record.
	Client string
}

// Change is a change of one file.
type Change struct {
	// Path is the path of the file as if Place.Root were /.
	Path string
	// Merge returns the new content of the file. oldText is its content, with or without the changes
	// of earlier calls of Write, or nil if there is no file. Merge returns nil if the file needs no
	// change. Its error says why it cannot change the file.
	Merge func(oldText []byte) ([]byte, error)
}

// State is the result of a change for a file.
type State string

// The states of files.
const (
	Written   State = "written"
	Unchanged State = "unchanged"
	LeftAlone State = "left alone"
	Restored  State = "restored"
	Removed   State = "removed"
)

// Result describes the change of one file.
type Result struct {
	Path  string `json:"path"`
	State State  `json:"state"`
	// Reason says why the change could not be made, if State is LeftAlone.
	Reason string `json:"reason,omitempty"`
	// Diff is the change in unified form.
	Diff string `json:"diff,omitempty"`
	// Backup is the file with the former content.
	Backup string `json:"backup,omitempty"`
}

// Read returns the content that a file below the root would have if Write had not changed it.
func (p Place) Read(path string) ([]byte, error) {
	content, err := os.ReadFile(p.real(path))
	if err != nil {
		return nil, err
	}
	r, err := p.record()
	if err != nil {
		return nil, err
	}
	before, existed, err := r.before(path, content)
	switch {
	case err != nil: // the former content is not known, because somebody has edited what Write wrote
		return content, nil
	case !existed:
		return nil, fs.ErrNotExist
	}
	return before, nil
}

// Write makes the given changes. It also undoes the changes that earlier calls of Write made to all
// other files. Write returns an error only for a problem with the record. A problem with a file is
// in the Result of that file.
func (p Place) Write(changes []Change) ([]Result, error) {
	r, err := p.record()
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, e := range slices.Clone(r.Files) {
		if !slices.ContainsFunc(changes, func(c Change) bool { return c.Path == e.Path }) {
			results = append(results, p.undo(r, e.Path))
		}
	}
	for _, c := range changes {
		if result, ok := p.write(r, c); ok {
			results = append(results, result)
		}
	}
	return results, p.save(r)
}

// Undo undoes all changes that Write made.
func (p Place) Undo() ([]Result, error) {
	r, err := p.record()
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, e := range slices.Backward(slices.Clone(r.Files)) {
		results = append(results, p.undo(r, e.Path))
	}
	return results, p.save(r)
}

// write makes one change. It returns false if the file does not exist and the change does not
// create it.
func (p Place) write(r *record, c Change) (Result, bool) {
	result := Result{Path: c.Path, State: LeftAlone}
	current, info, err := p.current(c.Path)
	if err != nil {
		result.Reason = advise(err).Error()
		return result, true
	}
	if content, err := c.Merge(current); current != nil && err == nil && (content == nil || bytes.Equal(content, current)) {
		result.State = Unchanged
		return result, true
	}
	before, existed, err := r.before(c.Path, current)
	if err != nil {
		result.Reason = advise(err).Error()
		return result, true
	}
	if !existed {
		before = nil
	}
	content, err := c.Merge(before)
	switch {
	case err != nil:
		result.Reason = advise(err).Error()
		return result, true
	case content == nil && current == nil:
		return result, false
	case content == nil: // an earlier change of this file is no longer needed
		return p.undo(r, c.Path), true
	}
	if bytes.Equal(content, current) {
		result.State = Unchanged
		return result, true
	}
	if err := p.replace(r, c.Path, before, current, content, info); err != nil {
		result.Reason = advise(err).Error()
		return result, true
	}
	result.State, result.Backup = Written, r.find(c.Path).Backup
	result.Diff = udiff.Unified(c.Path, c.Path, string(current), string(content))
	return result, true
}

// replace writes a file. It first makes the backup and the entry in the record.
func (p Place) replace(r *record, path string, before, current, content []byte, info fs.FileInfo) (err error) {
	former := slices.Clone(r.Files)
	made := "" // the backup
	defer func() {
		if err != nil {
			if made != "" {
				_ = os.Remove(p.real(made))
			}
			r.forget(p, path)
			r.Files = former
		}
	}()
	e := entry{Path: path}
	// If somebody has removed the file, the new entry does not name the backup. Otherwise undo would
	// delete the backup without restoring its content.
	if known := r.find(path); known != nil && current != nil {
		e.Backup = known.Backup
	}
	r.Files = append(slices.DeleteFunc(slices.Clone(former), func(f *entry) bool { return f.Path == path }), &e)
	e.Existed, e.Before, e.Content = before != nil, string(before), string(content)
	if e.Existed && e.Backup == "" {
		if made, err = p.backup(path, before, info); err != nil {
			return err
		}
		e.Backup = made
	}
	directories, err := p.mkdir(filepath.Dir(path))
	r.Directories = append(r.Directories, directories...)
	if err != nil {
		return err
	}
	if err := p.save(r); err != nil {
		return err
	}
	return put(p.real(path), content, info)
}

// undo undoes the changes that Write made to one file.
func (p Place) undo(r *record, path string) Result {
	result := Result{Path: path, State: LeftAlone}
	current, info, err := p.current(path)
	if err != nil {
		result.Reason = advise(err).Error()
		return result
	}
	e := r.find(path)
	before, existed, err := r.before(path, current)
	switch {
	case err != nil:
	case current == nil: // somebody has removed the file
		result.State = Removed
	case !existed:
		result.State = Removed
		err = os.Remove(p.real(path))
	default:
		result.State = Restored
		err = put(p.real(path), before, info)
	}
	if err != nil {
		result.State, result.Reason = LeftAlone, advise(err).Error()
		return result
	}
	result.Diff = udiff.Unified(path, path, string(current), string(before))
	if e.Backup != "" && current != nil {
		// Nobody needs the backup now: the file has its former content again, with the edits that
		// somebody made after Write.
		_ = os.Remove(p.real(e.Backup))
	}
	r.forget(p, path)
	return result
}

// current returns the content of a file, or nil if it does not exist.
func (p Place) current(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Lstat(p.real(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(p.real(path))
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("it is a symbolic link to %s, which another program may manage; edit that file yourself", to)
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("it is not a regular file")
	}
	content, err := os.ReadFile(p.real(path))
	if content == nil {
		content = []byte{}
	}
	return content, info, err
}

// backup copies the former content to a new file beside the old one, and returns the new path.
func (p Place) backup(path string, content []byte, info fs.FileInfo) (string, error) {
	name := path + ".before-dray"
	for i := 2; ; i++ {
		if _, err := os.Lstat(p.real(name)); errors.Is(err, fs.ErrNotExist) {
			return name, put(p.real(name), content, info)
		}
		name = path + ".before-dray." + strconv.Itoa(i)
	}
}

// mkdir makes a directory and its parents, and returns the new ones, the outermost first.
func (p Place) mkdir(dir string) (made []string, err error) {
	if dir == "/" {
		return nil, os.MkdirAll(p.real(dir), 0o755)
	}
	if _, err := os.Stat(p.real(dir)); err == nil {
		return nil, nil
	}
	if made, err = p.mkdir(filepath.Dir(dir)); err != nil {
		return made, err
	}
	return append(made, dir), os.Mkdir(p.real(dir), 0o755)
}

func (p Place) real(path string) string { return filepath.Join(p.Root, path) }

// put replaces a file in one step. If info is not nil, the new file has the mode and the owner in
// info.
func put(path string, content []byte, info fs.FileInfo) error {
	return replace.File(path, content, info, 0o644)
}

// Glob returns the paths of files below the root that match a pattern.
func (p Place) Glob(pattern string) []string {
	root := os.DirFS(cmp.Or(p.Root, "/"))
	found, _ := fs.Glob(root, strings.TrimPrefix(pattern, "/")) // the pattern is well-formed
	for i, path := range found {
		found[i] = "/" + path
	}
	return found
}

// advise extends an error about permissions by the advice to run dray setup as root.
func advise(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run dray setup as root", err)
	}
	return err
}
