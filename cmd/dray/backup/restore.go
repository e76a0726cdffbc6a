package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/cmd/dray/directories"
)

// reader restores one backup.
type reader struct {
	d    directories.Directories
	disk *disk.Dir
	temp string // directory that has the files of the state until the whole backup has been read
	sum  Summary
}

// Restore puts a backup into directories that have neither queued pushes nor hosted repositories.
// Pins may exist: a pin of the backup replaces a pin of the same name, and the other pins stay.
// Restore fails if another process uses the directories. If it fails before it has read the whole
// backup, at most some unneeded blobs stay in the cache.
func Restore(ctx context.Context, d directories.Directories, from io.Reader, log *slog.Logger) (_ Summary, err error) {
	if err := errors.Join(owned(d.Cache), owned(d.State)); err != nil {
		return Summary{}, err
	}
	d.Restoring = true
	if err := d.Prepare(log); err != nil {
		return Summary{}, err
	}
	held, err := d.Holds()
	if err != nil {
		return Summary{}, err
	}
	if held.Any() {
		return Summary{}, fmt.Errorf("%s already has %s, and a restore would mix them with others; move the directory away first", d.State, held)
	}
	r := &reader{d: d, temp: filepath.Join(d.State, "restore.new")}
	r.disk, err = disk.Open(disk.Options{Path: d.Content(), Pins: d.Pins(), Logger: log})
	if err != nil {
		return Summary{}, err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.disk.Run(running) }() // makes the blobs durable
	defer func() {
		stop()
		err = errors.Join(err, <-done, os.RemoveAll(r.temp), r.disk.Close())
	}()
	if err := os.RemoveAll(r.temp); err != nil {
		return Summary{}, err
	}
	if err := r.read(ctx, tar.NewReader(from)); err != nil {
		return Summary{}, err
	}
	return r.sum, r.place()
}

// read reads all entries. It returns an error if the last entry is missing.
func (r *reader) read(ctx context.Context, in *tar.Reader) error {
	h, err := in.Next()
	if err != nil || h.Name != headName {
		return errors.Join(errors.New("this is no backup of dray"), err)
	}
	var first head
	if err := json.NewDecoder(in).Decode(&first); err != nil {
		return fmt.Errorf("this is no backup of dray: %w", err)
	}
	if first.Format < 1 || first.Format > newest {
		return fmt.Errorf("the backup has format %d, which dray %s wrote, and this dray reads formats up to %d; restore it with that version or a newer one", first.Format, first.By, newest)
	}
	for {
		h, err := in.Next()
		if err != nil {
			return fmt.Errorf("the backup is incomplete, and nothing was restored: %w", err)
		}
		switch {
		case h.Name == endName:
			return r.end(in)
		case strings.HasPrefix(h.Name, blobsName):
			err = r.blob(ctx, h, in)
		default:
			err = r.file(h.Name, in)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// blob stores a blob, and verifies it.
func (r *reader) blob(ctx context.Context, h *tar.Header, in io.Reader) error {
	algorithm, hex, _ := strings.Cut(strings.TrimPrefix(h.Name, blobsName), "/")
	ingest, err := r.disk.Create(ctx, h.Size)
	if err != nil {
		return err
	}
	defer ingest.Abort()
	if _, err := io.Copy(ingest, in); err != nil {
		return err
	}
	b, err := ingest.Commit(ctx, digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex))
	if err != nil {
		return err
	}
	r.sum.Blobs, r.sum.Bytes = r.sum.Blobs+1, r.sum.Bytes+h.Size
	return b.Close()
}

// file stores a file of the state in the directory temp. [reader.place] moves it from there.
func (r *reader) file(name string, in io.Reader) error {
	part, _, _ := strings.Cut(name, "/")
	if parts(r.d)[part] == "" || !filepath.IsLocal(filepath.FromSlash(name)) {
		return errors.New("no part of a backup has this name")
	}
	path := filepath.Join(r.temp, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	r.sum.Files++
	return errors.Join(err, f.Sync(), f.Close())
}

// end returns an error if the counts in the last entry differ from the numbers of blobs and files
// that were read.
func (r *reader) end(in io.Reader) error {
	var want Summary
	if err := json.NewDecoder(in).Decode(&want); err != nil {
		return fmt.Errorf("the backup is incomplete, and nothing was restored: %w", err)
	}
	if want.Blobs != r.sum.Blobs || want.Files != r.sum.Files {
		return fmt.Errorf("the backup has %d blobs and %d files in place of %d and %d; nothing was restored", r.sum.Blobs, r.sum.Files, want.Blobs, want.Files)
	}
	r.sum.Missing = want.Missing
	return nil
}

// place moves the files of the state to where dray reads them. When it returns nil, they survive a
// power cut.
func (r *reader) place() error {
	for name, dir := range parts(r.d) {
		from := filepath.Join(r.temp, name)
		err := syncAll(from)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // the backup has no such files
		case err != nil:
		case name == pinsName:
			err = add(from, dir)
		default:
			if err = os.RemoveAll(dir); err == nil { // dir has no pushes or repositories: see Restore
				err = os.Rename(from, dir)
			}
		}
		if err == nil {
			err = directories.Sync(filepath.Dir(dir))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// syncAll syncs a directory and all directories below it.
func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return directories.Sync(path)
	})
}

// add moves files to a directory, and keeps the other files in it.
func add(from, dir string) error {
	files, err := os.ReadDir(from)
	if err = errors.Join(err, os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Rename(filepath.Join(from, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return directories.Sync(dir)
}

// owned returns an error if root restores into a directory of another user. That user could not
// read the new files.
func owned(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return nil // dir does not exist yet, so this process will own it
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && s.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d; run this as that user, as with runuser -u dray -- dray restore", dir, s.Uid)
	}
	return nil
}
