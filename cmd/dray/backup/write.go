package backup

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/cmd/dray/directories"
	"dray/mirror/hosted"
	"dray/mirror/queue"
)

// newest is the format of the backups that this program writes, and the newest format that it
// reads.
const newest = 1

// The names of entries. Between the blobs and the last entry are the files of the state: the queue,
// the hosted repositories and the pins. The name of such a file, such as "queue/journal", begins
// with a key of the map that [parts] returns. The path of the file follows, relative to the
// directory of this key.
const (
	headName  = "dray-backup.json"
	endName   = "complete.json"
	blobsName = "blobs/"
	pinsName  = "pins"
)

// head is the first entry.
type head struct {
	Format int    `json:"format"`
	By     string `json:"by"` // the version of dray that wrote the backup
}

// Summary describes the content of a backup. It is also the last entry of the backup.
type Summary struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"` // the size of the blobs
	Files int   `json:"files"` // the number of files of the state
	// Missing are blobs that the state needs and the cache has lost.
	Missing []digest.Digest `json:"missing"`
}

// writer writes one backup.
type writer struct {
	d       directories.Directories
	out     *tar.Writer
	written map[digest.Digest]bool
	sum     Summary
}

// Write writes a backup. A running dray may be using the directories. In that case, the backup has
// each file of the state as it was at some moment during the call. It has every blob that these
// files need, except the blobs in Summary.Missing.
func Write(d directories.Directories, w io.Writer) (Summary, error) {
	b := &writer{d: d, out: tar.NewWriter(w), written: map[digest.Digest]bool{}}
	if err := b.object(headName, head{newest, d.Version}); err != nil {
		return b.sum, err
	}
	temp, err := os.MkdirTemp("", "dray-backup-")
	if err != nil {
		return b.sum, err
	}
	defer os.RemoveAll(temp)
	state, err := b.collect(temp)
	if err != nil {
		return b.sum, err
	}
	for _, name := range slices.Sorted(maps.Keys(state)) {
		if err := b.entry(name, state[name]); err != nil {
			return b.sum, err
		}
		b.sum.Files++
	}
	if err := b.object(endName, b.sum); err != nil {
		return b.sum, err
	}
	return b.sum, b.out.Close()
}

// collect writes the blobs that the state needs, and returns the files of the state. A blob may be
// missing because dray has forwarded its push meanwhile, or deleted its image. Therefore collect
// reads the state again after it has found a missing blob. If the new state still needs that blob,
// and the blob is still missing, it is lost. collect repeats this until it finds no further missing
// blob.
func (b *writer) collect(temp string) (map[string][]byte, error) {
	var gone map[digest.Digest]bool
	for {
		state, err := b.snapshot()
		if err != nil {
			return nil, err
		}
		needs, err := b.needs(state, temp)
		if err != nil {
			return nil, err
		}
		again, lost := false, map[digest.Digest]bool{}
		for _, d := range needs {
			err := b.blob(d)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				lost[d], again = true, again || !gone[d]
			case err != nil:
				return nil, fmt.Errorf("blob %s: %w", d, err)
			}
		}
		if !again {
			b.sum.Missing = slices.Sorted(maps.Keys(lost))
			return state, nil
		}
		gone = lost
	}
}

// parts returns the directories of the state by their names in the backup.
func parts(d directories.Directories) map[string]string {
	pins := filepath.Join(cmp.Or(d.Pins(), d.Content()), pinsName)
	return map[string]string{"queue": d.Queue(), "hosted": d.Hosted(""), pinsName: pins}
}

// snapshot returns the contents of the state's files, by their names in the backup.
func (b *writer) snapshot() (map[string][]byte, error) {
	state := map[string][]byte{}
	for name, dir := range parts(b.d) {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // the file never existed, or was removed meanwhile
				return nil
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			below, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			state[name+"/"+filepath.ToSlash(below)] = text
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return state, nil
}

// needs returns the blobs that the files of a state need. It writes the files to the directory
// temp, where the packages queue and hosted read them.
func (b *writer) needs(state map[string][]byte, temp string) ([]digest.Digest, error) {
	if err := os.RemoveAll(temp); err != nil {
		return nil, err
	}
	for name, text := range state {
		path := filepath.Join(temp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	needs := map[digest.Digest]bool{}
	pushes, err := queue.Read(filepath.Join(temp, "queue"))
	if err != nil {
		return nil, err
	}
	for _, p := range pushes {
		for _, blob := range p.Blobs {
			needs[blob.Digest] = true
		}
	}
	upstreams, err := os.ReadDir(filepath.Join(temp, "hosted"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, u := range upstreams {
		err := hosted.Needs(filepath.Join(temp, "hosted", u.Name()), b.raw, func(d digest.Digest) { needs[d] = true })
		if err != nil {
			return nil, fmt.Errorf("hosted %s: %w", u.Name(), err)
		}
	}
	return slices.Sorted(maps.Keys(needs)), nil
}

// raw returns the bytes of a small blob.
func (b *writer) raw(d digest.Digest) ([]byte, error) {
	name, err := disk.BlobFile(d)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(b.d.Content(), name))
}

// blob writes a blob, unless the backup has it already.
func (b *writer) blob(d digest.Digest) error {
	if b.written[d] {
		return nil
	}
	name, err := disk.BlobFile(d)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(b.d.Content(), name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.out.WriteHeader(&tar.Header{Name: blobsName + string(d.Algorithm()) + "/" + d.Encoded(), Mode: 0o600, Size: info.Size()}); err != nil {
		return err
	}
	verifier := d.Verifier()
	if _, err := io.Copy(io.MultiWriter(b.out, verifier), io.LimitReader(f, info.Size())); err != nil {
		return err
	}
	if !verifier.Verified() {
		return errors.New("its bytes have changed on disk; start dray, which sets it aside, and make the backup again")
	}
	b.written[d] = true
	b.sum.Blobs, b.sum.Bytes = b.sum.Blobs+1, b.sum.Bytes+info.Size()
	return nil
}

func (b *writer) object(name string, object any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return b.entry(name, text)
}

func (b *writer) entry(name string, text []byte) error {
	if err := b.out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := b.out.Write(text)
	return err
}
