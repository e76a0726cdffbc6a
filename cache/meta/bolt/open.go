package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	openSuffix    = ".open"
	corruptSuffix = ".corrupt"
)

// file is a database that can be given up after damage. A file that was given up stays mapped, and
// locked against other processes, until this process ends. An attempt to unmap it could block on a
// lock, or cause a fault in a reader.
type file struct {
	db     *bbolt.DB
	broken atomic.Bool
	// writer is a mutex that is held during every write. A write takes it before bbolt's own lock. If
	// a write finds damage and cannot roll back, bbolt's lock stays locked forever. But writer is
	// released, and the callers that wait for writer get ErrCorrupt.
	writer chan struct{}
}

// [file.contain] calls fn. When a file is damaged, bbolt panics or reads beyond the end of the
// mapping. contain turns both into ErrCorrupt. After that it does not use the database again,
// because the locks of the database are in an unknown state.
func (f *file) contain(fn func(*bbolt.DB) error) (err error) {
	if f.broken.Load() {
		return fmt.Errorf("%w, found earlier", ErrCorrupt)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			f.broken.Store(true)
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	return fn(f.db)
}

// close syncs and closes the file. If both succeed, it calls afterClose.
func (f *file) close(afterClose func() error) error {
	return f.contain(func(db *bbolt.DB) error {
		if err := db.Sync(); err != nil {
			return errors.Join(err, db.Close())
		}
		if err := db.Close(); err != nil {
			return err
		}
		return afterClose()
	})
}

// openSound returns a database in which openChecked found no damage, and marks its file as in use.
// If the file is damaged, openSound moves it aside and creates a new one.
func openSound(path string, lockTimeout time.Duration, log *slog.Logger) (*file, error) {
	f, err := openChecked(path, lockTimeout)
	if errors.Is(err, ErrCorrupt) {
		log.Warn("metadata file is damaged, starting with an empty one",
			"path", path, "moved_to", path+corruptSuffix, "error", err)
		if err := os.Rename(path, path+corruptSuffix); err != nil {
			return nil, err
		}
		f, err = openChecked(path, lockTimeout)
	}
	if err != nil {
		return nil, err
	}
	if err := mark(path); err != nil {
		return nil, errors.Join(err, f.close(func() error { return nil }))
	}
	return f, nil
}

// openChecked opens the file. If the file was not closed properly, openChecked reads and checks all
// of it.
func openChecked(path string, lockTimeout time.Duration) (*file, error) {
	f, err := openLocked(path, lockTimeout)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(path + openSuffix)
	used := !errors.Is(err, fs.ErrNotExist)
	err = f.contain(func(db *bbolt.DB) error {
		if err := fits(db, path); err != nil {
			return err
		}
		if err := db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte(facts))
			return err
		}); err != nil || !used {
			return err
		}
		return db.View(verify)
	})
	if err != nil {
		err = classify(err)
		if closeErr := f.close(func() error { return nil }); !errors.Is(closeErr, ErrCorrupt) {
			err = errors.Join(err, closeErr)
		}
		return nil, err
	}
	return f, nil
}

// openLocked opens and locks the file. Of the content, bbolt.Open checks only the first pages.
func openLocked(path string, lockTimeout time.Duration) (*file, error) {
	f := &file{writer: make(chan struct{}, 1)}
	err := f.contain(func(*bbolt.DB) (err error) {
		f.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			NoSync:       true,
			NoGrowSync:   true,
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
		})
		return err
	})
	switch {
	case err == nil:
		return f, nil
	case ofSystem(err):
		return nil, err
	}
	if err = classify(err); errors.Is(err, ErrLocked) || errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	// All other errors are about the content of the file. classify does not know some of them, because
	// bbolt has no error values for them.
	return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// ofSystem reports whether an error came from the system and not from the content of the file.
func ofSystem(err error) bool {
	_, errno := errors.AsType[syscall.Errno](err)
	_, path := errors.AsType[*fs.PathError](err)
	return errno || path
}

// [passing] reports whether the cause of an error may go away by itself. Such causes are a disk
// that is full or cannot be read, and a lack of descriptors, memory or locks.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ESTALE,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOLCK,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// classify turns an error about the content of the file into ErrCorrupt, and a timeout into
// ErrLocked.
func classify(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, ErrCorrupt):
		return err
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum),
		errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrInvalidMapping),
		errors.Is(err, berrors.ErrIncompatibleValue):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// [fits] returns an error for a file that is shorter than its header says. A read of a page beyond
// the end of the file would cause a fault.
func fits(db *bbolt.DB, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: %d of %d bytes", ErrCorrupt, info.Size(), tx.Size())
		}
		return nil
	})
}

// verify reads the whole file. It first walks the keys in this goroutine, where contain handles a
// fault. bbolt's Check follows the same pages in a goroutine of its own, where a fault would end
// the process. So verify calls Check only if the walk has succeeded.
func verify(tx *bbolt.Tx) error {
	var last []byte
	c := tx.Bucket([]byte(facts)).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if last != nil && string(k) <= string(last) {
			return fmt.Errorf("%w: keys out of order", ErrCorrupt)
		}
		if len(v) < expirySize {
			return fmt.Errorf("%w: value without expiry", ErrCorrupt)
		}
		last = append(last[:0], k...)
	}
	var first error
	for err := range tx.Check() { // all errors are read, or the goroutine of Check would wait forever
		if first == nil {
			first = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return first
}

// mark creates the marker that says that the file is in use. The marker is on stable storage when
// mark returns.
func mark(path string) error {
	f, err := os.OpenFile(path+openSuffix, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(path))
}

func removeMarker(path string) error {
	if err := os.Remove(path + openSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(path)
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
