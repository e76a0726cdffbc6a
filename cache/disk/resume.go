package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A resumable ingest outlives the process. Its bytes are in ingest/<key>.part. The first line of
// ingest/<key>.note has the digest once the ingest is being committed, and is empty until then. The
// rest of that file is the note that the caller of CreateResumable passed. Neither file is synced.
// Both survive a killed process, because the kernel has their bytes. After a power cut, either file
// may be missing, or the bytes of the ingest may be wrong. Commit detects wrong bytes by the
// digest.

// ErrKey says that the key of an ingest is malformed, or that its note is too long.
var ErrKey = errors.New("invalid ingest key")

const (
	partSuffix = ".part"
	noteSuffix = ".note"
	// maxNote bounds a note, in bytes.
	maxNote = 64 << 10
)

// Left is an ingest that an earlier process left under a key. Either the ingest can be continued,
// or it was committed as a blob.
type Left struct {
	Key  string
	Note []byte
	// Since is when the ingest was last written to, or committed.
	Since time.Time
	// Ingest is the ingest that can be continued; nil if Digest is set.
	Ingest *Ingest
	// Digest is the digest of the committed blob, and Size is its length in bytes. The blob is not
	// evicted until Forget is called.
	Digest digest.Digest
	Size   int64
}

// CreateResumable is like Create, but its ingest has an unknown length and outlives the process.
// The next process gets the ingest and its note from Recover. The key consists of up to 100
// letters, digits, hyphens and underscores. No other ingest may have the key. CreateResumable
// returns ErrKey for a malformed key, and for a note that is too long.
func (s *ingests) CreateResumable(ctx context.Context, key string, note []byte) (*Ingest, error) {
	if !validKey.MatchString(key) || len(note) > maxNote {
		return nil, fmt.Errorf("create %.100q: %w", key, ErrKey)
	}
	if err := s.scan.wait(ctx); err != nil {
		return nil, err
	}
	in := s.ingest(partName(key), -1)
	in.key, in.note = key, note
	err := in.create()
	if err == nil {
		err = s.writeNote(key, "", note)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create: %w", asFull(err)), in.Abort())
	}
	return in, nil
}

var validKey = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,100}$`)

func partName(key string) string { return "ingest/" + key + partSuffix }
func noteName(key string) string { return "ingest/" + key + noteSuffix }

// Suspend closes a resumable ingest in this process and leaves it to the next process. An ingest
// that is not resumable is aborted. Suspend does nothing after a successful Commit, or after Abort.
func (in *Ingest) Suspend() error {
	if in.key == "" {
		return in.Abort()
	}
	if !in.end() {
		return nil
	}
	in.mu.Lock()
	reserved, pending := in.reserved, in.reserved-in.occupied
	in.mu.Unlock()
	in.home.release(reserved, pending)
	return in.file.Close()
}

// Keep protects the blob with the digest dg from eviction until Forget is called. The key is the
// key of the ingest that was committed as this blob. The blob must still be on disk.
func (s *ingests) Keep(key string, dg digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committed[key] = dg
	s.claim([]digest.Digest{dg}, claims{received: 1})
}

// Forget removes the note of a blob that was committed under a key. The blob may then be evicted,
// if nothing else protects it. An unknown key is no error.
func (s *ingests) Forget(key string) error {
	s.mu.Lock()
	if dg, ok := s.committed[key]; ok {
		delete(s.committed, key)
		s.claim([]digest.Digest{dg}, claims{received: -1})
	}
	s.mu.Unlock()
	if err := s.removeNote(key); err != nil {
		return fmt.Errorf("forget %s: %w", key, err)
	}
	return nil
}

// Recover returns the ingests and committed blobs that earlier processes left. Only the first call
// returns them. Their bytes count for the quota even before the first call.
func (s *ingests) Recover() []Left {
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.former
	s.former = nil
	return former
}

// noteDigest adds the digest of a resumable ingest to its note, just before the blob is published.
func (in *Ingest) noteDigest(dg digest.Digest) error {
	if in.key == "" {
		return nil
	}
	return in.home.writeNote(in.key, dg, in.note)
}

// rehash hashes the bytes that an earlier process has written, if they are not hashed yet.
func (in *Ingest) rehash() error {
	if in.unhashed == 0 {
		return nil
	}
	if _, err := io.CopyBuffer(in.hash, io.NewSectionReader(in, in.size.Load()-in.unhashed, in.unhashed), make([]byte, 256<<10)); err != nil {
		in.hash.Reset()
		in.unhashed = in.size.Load()
		return fmt.Errorf("read earlier content: %w", err)
	}
	in.unhashed = 0
	return nil
}

// writeNote replaces a note in one step, without syncing it.
func (s *ingests) writeNote(key string, dg digest.Digest, note []byte) error {
	tmp := s.ingestName()
	err := s.evictor.withRoom(func() error { return s.root.WriteFile(tmp, append([]byte(dg+"\n"), note...), 0o600) })
	if err != nil {
		_ = s.root.Remove(tmp) // it may not have been created
		return err
	}
	if err := s.root.Rename(tmp, noteName(key)); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return nil
}

func (s *ingests) removeNote(key string) error {
	if err := s.root.Remove(noteName(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tidy removes unfinished files from ingest/, except the files of resumable ingests. It also
// removes the files of a resumable ingest if loadLeft cannot read them, for example because the
// note is malformed.
func (s *ingests) tidy() error {
	files, err := fs.ReadDir(s.root.FS(), "ingest")
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, f := range files {
		key, ok := strings.CutSuffix(f.Name(), noteSuffix)
		if !ok {
			continue
		}
		l, err := s.loadLeft(key)
		switch {
		case err != nil:
			s.log.Error("discarded unfinished upload", "key", key, "error", err)
			continue
		case l.Ingest != nil:
			kept[key+partSuffix] = true
		case l.Digest == "":
			continue // the ingest was being aborted, or a power cut took its bytes
		}
		kept[f.Name()] = true
		s.former = append(s.former, l)
	}
	for _, f := range files {
		if kept[f.Name()] {
			continue
		}
		if err := s.root.RemoveAll("ingest/" + f.Name()); err != nil {
			return err
		}
	}
	return nil
}

// loadLeft reads the files of a key. It counts the bytes of an ingest as reserved. It claims a
// committed blob, so that the blob is not evicted.
func (s *ingests) loadLeft(key string) (Left, error) {
	if !validKey.MatchString(key) {
		return Left{}, ErrKey
	}
	l := Left{Key: key}
	info, err := s.root.Stat(noteName(key))
	if err != nil {
		return l, err
	}
	if info.Size() > maxNote+1024 {
		return l, ErrTooLarge
	}
	b, err := s.root.ReadFile(noteName(key))
	if err != nil {
		return l, err
	}
	first, note, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return l, errors.New("the note of the upload is incomplete")
	}
	l.Note, l.Since = note, info.ModTime()
	file, err := s.root.OpenFile(partName(key), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if len(first) == 0 {
			return l, nil
		}
		l.Digest = digest.Digest(first)
		name, err := blobPath(l.Digest)
		if err != nil {
			return l, err
		}
		info, err := s.root.Stat(name)
		if err != nil {
			return l, err
		}
		l.Size = info.Size()
		s.Keep(key, l.Digest)
		return l, nil
	}
	if err != nil {
		return l, err
	}
	return s.reopened(l, file)
}

// [ingests.reopened] adds to l the ingest whose bytes are in the given file, and counts these bytes
// as reserved.
func (s *ingests) reopened(l Left, file *os.File) (Left, error) {
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return l, errors.Join(err, file.Close())
	}
	size := info.Size()
	l.Since = info.ModTime()
	in := s.ingest(partName(l.Key), -1)
	in.key, in.note, in.file, in.unhashed, in.reserved, in.occupied = l.Key, l.Note, file, size, blocks(size), blocks(size)
	in.size.Store(size)
	l.Ingest = in
	s.mu.Lock()
	s.reserved += blocks(size)
	s.mu.Unlock()
	return l, nil
}
