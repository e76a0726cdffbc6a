package hosted

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"dray/upstream/oci"
)

// The path of a repository's file has one directory for each part of the repository's name. No part
// of a repository's name begins with "_", so no such directory has the name of a file.
const (
	fileName = "_repository.json"
	tempName = "_repository.new"
	badName  = "_repository.bad"
)

// fileOf returns the path of a repository's file. It checks the name, which may come from any
// client.
func fileOf(name string) (string, error) {
	if err := oci.CheckRepo(name); err != nil {
		return "", err
	}
	if p := path.Join(name, fileName); fs.ValidPath(p) && p == name+"/"+fileName {
		return p, nil
	}
	return "", oci.ErrNameInvalid.With("invalid repository name %q", name)
}

// repoOf is the inverse of fileOf. It returns false for the path of any other file.
func repoOf(file string) (string, bool) {
	name, ok := strings.CutSuffix(file, "/"+fileName)
	if !ok {
		return "", false
	}
	back, err := fileOf(name)
	return name, err == nil && back == file
}

// files reads and writes the files of the repositories. Each repository has one file.
type files struct{ root *os.Root }

// write replaces the file of a repository by a file with the state st. It returns when the new file
// is on stable storage.
func (w files) write(name string, st *state) error {
	file, err := fileOf(name)
	if err != nil {
		return err
	}
	text, err := st.encode(name)
	if err != nil {
		return err
	}
	dir := path.Dir(file)
	temp := path.Join(dir, tempName)
	f, err := w.create(dir, temp)
	if errors.Is(err, fs.ErrNotExist) { // meanwhile, the method erase removed an empty directory
		f, err = w.create(dir, temp)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := w.root.Rename(temp, file); err != nil {
		return err
	}
	return w.syncDirs(dir)
}

func (w files) create(dir, file string) (*os.File, error) {
	if err := w.root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return w.root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// erase removes the file of an empty repository, and the directories that are empty then.
func (w files) erase(name string) error {
	file, err := fileOf(name)
	if err != nil {
		return err
	}
	if err := w.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		_ = w.root.Remove(path.Join(dir, tempName))
		if w.root.Remove(dir) != nil { // the directory has a bad file, or files of another repository
			break
		}
	}
	return nil
}

// syncDirs makes a rename in a directory durable. It also syncs all directories above, because they
// may be new.
func (w files) syncDirs(dir string) error {
	for {
		f, err := w.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

// [files.each] calls the function visit for the file of every repository. It skips files and
// directories that are erased meanwhile.
func (w files) each(ctx context.Context, visit func(name, file string) error) error {
	return fs.WalkDir(w.root.FS(), ".", func(file string, e fs.DirEntry, err error) error {
		if name, ok := repoOf(file); err == nil && ok && e.Type().IsRegular() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = visit(name, file)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func (w files) read(file string) ([]byte, error) {
	f, err := w.root.Open(file)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return text, errors.Join(err, f.Close())
}

// setBad renames a file that cannot be decoded.
func (w files) setBad(file string) error {
	return w.root.Rename(file, path.Join(path.Dir(file), badName))
}
