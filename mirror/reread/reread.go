package reread

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Value is a value that is made from the contents of files. Administrators, Kubernetes and
// cert-manager replace passwords, keys and certificates while dray runs, so each call of
// [Value.Get] checks whether a file has changed. If the changed files cannot be used, the last
// value stays in use. A Value may be used concurrently.
type Value[T any] struct {
	paths   []string
	parse   func(texts [][]byte) (T, error)
	log     *slog.Logger
	current atomic.Pointer[state[T]]
}

// state is the result of one read of the files. It is immutable.
type state[T any] struct {
	read    []os.FileInfo // how the files were when value was made
	value   T
	failure *Failure
}

// Failure says why changed files cannot be used, and when Get first noticed this.
type Failure struct {
	Err   error
	Since time.Time
}

// New makes a value from files. parse gets their contents in the order of paths. Its errors must
// not show the contents. log may be nil.
func New[T any](log *slog.Logger, parse func(texts [][]byte) (T, error), paths ...string) (*Value[T], error) {
	v := &Value[T]{parse: parse, log: cmp.Or(log, slog.New(slog.DiscardHandler))}
	for _, p := range paths {
		v.paths = append(v.paths, filepath.Clean(p))
	}
	first, err := v.load()
	if err != nil {
		return nil, err
	}
	v.current.Store(first)
	return v, nil
}

// Get returns the value of the present files. If these cannot be used, Get returns the last value
// that could be made, and the failure. It logs each change of the files, and each failure that
// differs from the failure before it.
func (v *Value[T]) Get() (T, *Failure) {
	old := v.current.Load()
	if old.failure == nil && v.unchanged(old.read) {
		return old.value, nil
	}
	// After a failure, each Get loads the files again, even if Stat shows no further change, because a
	// file may have been half-written, or not readable yet.
	now, err := v.load()
	if err != nil {
		now = &state[T]{old.read, old.value, &Failure{err, time.Now()}}
		if old.failure != nil {
			now.failure.Since = old.failure.Since
		}
	}
	if !v.current.CompareAndSwap(old, now) {
		newer := v.current.Load()
		return newer.value, newer.failure
	}
	files := strings.Join(v.paths, ", ")
	switch {
	case err == nil:
		v.log.Info("a changed file was read again", "file", files)
	case old.failure == nil || old.failure.Err.Error() != err.Error():
		v.log.Warn("a changed file cannot be used; its former content stays in use", "file", files, "error", err)
	}
	return now.value, now.failure
}

// unchanged reports whether the files are as they were when infos were read. A missing file counts
// as changed.
func (v *Value[T]) unchanged(infos []os.FileInfo) bool {
	for i, was := range infos {
		now, err := os.Stat(v.paths[i])
		if err != nil || !os.SameFile(now, was) || !now.ModTime().Equal(was.ModTime()) || now.Size() != was.Size() {
			return false
		}
	}
	return true
}

// load reads the files and makes the value.
func (v *Value[T]) load() (*state[T], error) {
	s := &state[T]{read: make([]os.FileInfo, len(v.paths))}
	texts := make([][]byte, len(v.paths))
	for i, path := range v.paths {
		var err error
		// Stat comes before the read, so that the next Get notices a change that happens during the
		// read.
		if s.read[i], err = os.Stat(path); err != nil {
			return nil, err
		}
		if texts[i], err = readFile(path, s.read[i]); err != nil {
			return nil, err
		}
	}
	var err error
	if s.value, err = v.parse(texts); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(v.paths, ", "), err)
	}
	return s, nil
}

// ReadFile reads a file as a Value does: it refuses pipes and sockets.
func ReadFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil {
		return readFile(path, info)
	}
	return os.ReadFile(path) // its error says that dray cannot open the file
}

func readFile(path string, info os.FileInfo) ([]byte, error) {
	if info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 {
		return nil, fmt.Errorf("%s: is a pipe or a socket, where a read can wait forever; write the content to a file", path)
	}
	return os.ReadFile(path)
}
