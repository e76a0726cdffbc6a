package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	scrubFile      = "scrub"               // records how far the pass under way has got
	scrubPiece     = 256 << 10             // bytes read at a time
	scrubSaveEvery = time.Minute           // how often the position is saved
	slowRead       = 20 * time.Millisecond // if reading a piece takes longer, the disk is probably busy
	slowFactor     = 10                    // the pause after a slow read is this many times as long as the read
)

// Scrub says how held blobs are verified again in the background.
type Scrub struct {
	// Interval is the time in which each blob is read once. Zero means that no blob is read again.
	Interval time.Duration
	// BytesPerSecond bounds how fast blobs are read, even if a pass then takes longer than Interval.
	// Zero means 8 MiB.
	BytesPerSecond int64
}

// cursor is the position of a pass. Each pass goes through the digests in the same order, so the
// next blob is the one whose last verification is the longest ago.
type cursor struct {
	began time.Time     // when this pass began
	after digest.Digest // the digest that was verified last; empty at the beginning of a pass
	ended time.Time     // when the previous pass ended; zero if there was none
}

// scrubber verifies held blobs, in one pass after another.
type scrubber struct {
	*resources
	cursor
	evictor    *evictor
	quarantine *quarantine
	ctx        context.Context
	interval   time.Duration // the planned duration of one pass
	rate       int64         // bytes per second
	buf        []byte
	savedAt    time.Time // when the position was last saved
}

// run verifies all blobs in passes until ctx ends, and moves rotten blobs to quarantine.
func (s *scrubber) run() {
	s.load()
	for s.pass() {
		s.ended, s.after = time.Now(), ""
		s.m.passed.Store(s.ended.Unix())
		s.save()
		if !s.sleep(time.Until(s.began.Add(s.interval))) {
			break
		}
		s.began = time.Now()
	}
	s.save()
}

// sleep waits for the given time. It returns false when ctx has ended.
func (s *scrubber) sleep(pause time.Duration) bool {
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
	return s.ctx.Err() == nil
}

// pass verifies blobs from the position to the last digest. It returns false when ctx has ended.
func (s *scrubber) pass() bool {
	for _, alg := range slices.Sorted(slices.Values(s.names("blobs"))) {
		for _, two := range slices.Sorted(slices.Values(s.names("blobs/" + alg))) {
			if digest.Digest(alg+":"+two+"~") < s.after { // skip the whole shard
				continue
			}
			if !s.shard("blobs/" + alg + "/" + two) {
				return false
			}
		}
	}
	return s.ctx.Err() == nil
}

func (s *scrubber) shard(shard string) bool {
	for _, name := range slices.Sorted(slices.Values(s.names(shard))) {
		if s.ctx.Err() != nil {
			return false
		}
		k, ok := parsePath(shard, name)
		if !ok || k.digest() <= s.after {
			continue
		}
		if !s.scrubBlob(k.digest()) {
			return false
		}
	}
	return true
}

// scrubBlob verifies one blob. A blob has a share of the interval in proportion to its size:
// scrubBlob sleeps for the rest of this share. It returns false when ctx has ended.
func (s *scrubber) scrubBlob(dg digest.Digest) bool {
	began := time.Now()
	s.mu.Lock()
	e, used := s.index.get(dg), max(s.used, blockSize)
	held := e != nil && !e.suspect // the checker verifies suspect blobs
	if held {
		s.refInternal(e)
	}
	s.mu.Unlock()
	if !held {
		return true
	}
	err := s.verify(e)
	rotten := errors.Is(err, ErrCorrupt) || errors.Is(err, unix.EIO)
	switch {
	case s.ctx.Err() != nil:
	case rotten:
		s.m.rot.Inc()
		s.log.Error("blob on disk is corrupt, and will be fetched again on request", "digest", dg, "error", err)
		err = s.quarantine.put(s.ctx, e)
	case errors.Is(err, fs.ErrNotExist):
		err = s.evictor.remove(s.ctx, e)
	}
	share := time.Duration(float64(s.interval) * float64(e.blocks()) / float64(used))
	s.unrefInternal(e)
	if s.ctx.Err() != nil {
		return false
	}
	if err != nil {
		s.log.Warn("cannot scrub blob", "digest", dg, "error", err)
	}
	s.after = dg
	if time.Since(s.savedAt) >= scrubSaveEvery {
		s.save()
	}
	return s.sleep(share - time.Since(began))
}

// verify hashes the file of an entry, at the configured rate or slower. It returns ErrCorrupt for
// wrong bytes. The caller holds a reference to the entry.
func (s *scrubber) verify(e *entry) error {
	f, err := s.open(e.path())
	if err != nil {
		return err
	}
	defer f.Close()
	v := e.digest().Verifier()
	for at := int64(0); ; {
		n, err := s.read(f, at)
		v.Write(s.buf[:n]) // never fails
		at += int64(n)
		switch {
		case err == io.EOF || err == nil && n == 0:
			if at != e.size || !v.Verified() {
				return ErrCorrupt
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// read reads one piece and waits until the next one may be read.
func (s *scrubber) read(f *os.File, at int64) (int, error) {
	began := time.Now()
	err := s.fault(OpRead, f.Name())
	n := 0
	if err == nil {
		n, err = readUncached(f, s.buf, at)
	}
	s.m.scrubbed.Add(float64(n))
	took := time.Since(began)
	pause := time.Duration(int64(n)*int64(time.Second)/s.rate) - took
	if took > slowRead {
		pause = max(pause, took*slowFactor)
	}
	if !s.sleep(pause) {
		return n, context.Cause(s.ctx)
	}
	return n, err
}

// save saves the position. If it is lost, some blobs are read once more.
func (s *scrubber) save() {
	s.savedAt = time.Now()
	if err := s.writeFile(scrubFile, s.text()); err != nil {
		s.log.Warn("cannot store the scrub position", "error", err)
	}
}

// load reads the position, or starts at the beginning.
func (s *scrubber) load() {
	b, err := s.root.ReadFile(scrubFile)
	if err == nil {
		s.cursor, err = parseCursor(b)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("scrub position is lost, verifying the cache from the beginning", "error", err)
		}
		s.cursor = cursor{}
	}
	if s.began.IsZero() || s.began.After(time.Now()) {
		s.began = time.Now()
	}
	if !s.ended.IsZero() {
		s.m.passed.Store(s.ended.Unix())
	}
	s.savedAt = time.Now()
}

// text returns the content of scrubFile: lines that consist of a name and a value.
func (p cursor) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "began %s\n", p.began.UTC().Format(time.RFC3339))
	if p.after != "" {
		fmt.Fprintf(&b, "after %s\n", p.after)
	}
	if !p.ended.IsZero() {
		fmt.Fprintf(&b, "ended %s\n", p.ended.UTC().Format(time.RFC3339))
	}
	return b.Bytes()
}

// parseCursor is the inverse of text.
func parseCursor(b []byte) (p cursor, err error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() && err == nil {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "began":
			p.began, err = time.Parse(time.RFC3339, value)
		case "ended":
			p.ended, err = time.Parse(time.RFC3339, value)
		case "after":
			p.after = digest.Digest(value)
			_, err = blobPath(p.after)
		default:
			err = fmt.Errorf("unknown line %.100q", lines.Text())
		}
	}
	return p, errors.Join(err, lines.Err())
}
