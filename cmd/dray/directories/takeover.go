package directories

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dray/mirror/queue"
)

// part is a directory that belongs to the state directory. An older dray kept it in the cache's
// directory, where it may still be.
type part struct {
	from, to string
	// empty reports whether dir can be removed without a loss. Callers pass the field from or to.
	empty func(dir string) (bool, error)
}

func (d Directories) parts() []part {
	former := Directories{Cache: d.Cache, State: d.Cache}
	return []part{
		{former.Queue(), d.Queue(), noPushes},
		{former.Hosted(""), d.Hosted(""), noFiles},
		{filepath.Join(d.Content(), pinsName), filepath.Join(d.State, pinsName), noFiles},
	}
}

func noPushes(dir string) (bool, error) {
	pushes, err := queue.Read(dir)
	return len(pushes) == 0, err
}

func noFiles(dir string) (bool, error) {
	names, err := filesIn(dir)
	return len(names) == 0, err
}

// takeOver moves the parts in the cache's directory to the state directory. An interruption loses
// nothing: takeOver copies a part under another name, syncs the copy, renames it, and only then
// removes the original. If a part is in both directories, and the state directory has every file of
// the original, an earlier takeover was interrupted, and takeOver only removes the original. If a
// file is missing there or differs, an older dray has used the cache's directory after an earlier
// takeover, and takeOver returns an error.
func (d Directories) takeOver(log *slog.Logger) error {
	var found []part
	for _, p := range d.parts() {
		empty, err := p.empty(p.from)
		if err != nil {
			return err
		}
		if !empty {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil
	}
	unlock, err := d.lockContent()
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range found {
		if err := p.move(); err != nil {
			return err
		}
		log.Info("moved to the state directory", "from", p.from, "to", p.to)
	}
	return nil
}

// lockContent locks the cache, so that no other dray changes the files while they are moved.
func (d Directories) lockContent() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.Content(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is in use by another dray; stop it first: %w", d.Cache, err)
	}
	return func() { _ = f.Close() }, nil
}

// move moves a part. The directories may be on different file systems.
func (p part) move() error {
	empty, err := p.empty(p.to)
	if err != nil {
		return err
	}
	if !empty {
		if alike, err := sameFiles(p.from, p.to); err != nil || !alike {
			return errors.Join(err, fmt.Errorf("%s and %s both have content: an older dray has used the cache directory again; start that dray, let it forward its queue, and move what you need by hand", p.from, p.to))
		}
		return os.RemoveAll(p.from)
	}
	temp := p.to + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := copyTree(p.from, temp); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.RemoveAll(p.to); err != nil { // p.empty has found that this loses nothing
		return err
	}
	if err := os.Rename(temp, p.to); err != nil {
		return err
	}
	if err := Sync(filepath.Dir(p.to)); err != nil {
		return err
	}
	return os.RemoveAll(p.from)
}

// filesIn returns the names of all files below a directory, relative to it. If the directory does
// not exist, filesIn returns no names.
func filesIn(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, failed := filepath.Rel(dir, path)
			names, err = append(names, name), failed
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// sameFiles reports whether every file below the directory a is also below the directory b, with
// the same content.
func sameFiles(a, b string) (bool, error) {
	names, err := filesIn(a)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		one, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			return false, err
		}
		two, err := os.ReadFile(filepath.Join(b, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if err != nil || !bytes.Equal(one, two) {
			return false, nil
		}
	}
	return true, nil
}

// copyTree copies all files below a directory, with their modification times, and syncs them.
func copyTree(from, to string) error {
	var dirs []string
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(to, name))
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		return copyFile(path, filepath.Join(to, name))
	})
	for _, dir := range dirs {
		if err == nil {
			err = Sync(dir)
		}
	}
	return err
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, body); err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime()) // the modification time of a pin shows its age
}
