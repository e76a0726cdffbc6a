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
	scrubFile    = "scrub"               // how far the pass under way is
	scrubPiece   = 256 << 10             // bytes read at a time
	scrubNote    = time.Minute           // how often the place is written down
	slowRead     = 20 * time.Millisecond // a piece that takes longer was read from a busy disk
	slowPatience = 10                    // so many times as long as the read, the disk is then left alone
)

// Scrub says how blobs that are held are verified again, in the background.
type Scrub struct {
	// Interval within which each blob is read once. Zero: never.
	Interval time.Duration
	// BytesPerSecond are read at most, even if a pass then takes longer than Interval. Zero means 8
	// MiB.
	BytesPerSecond int64
}

// cursor is how far a pass has got. Passes go through the digests in order, so the next
// blob is always one of those that nobody has verified for the longest time.
type cursor struct {
	began time.Time     // of the pass
	after digest.Digest // verified last; empty at the beginning
	ended time.Time     // of the pass before; zero: there was none
}

// scrubber verifies what is held, again and again.
type scrubber struct {
	*resources
	cursor
	room       *evictor
	quarantine *quarantine
	ctx        context.Context
	interval   time.Duration // of one pass
	rate       int64         // bytes per second
	buf        []byte
	noted      time.Time // when the place was written down
}

// run reads all blobs again and again until ctx ends, and moves those aside that are not what
// they were.
func (s *scrubber) run() {
	s.load()
	for s.pass() {
		s.ended, s.after = time.Now(), ""
		s.m.passed.Store(s.ended.Unix())
		s.save()
		if !s.rest(time.Until(s.began.Add(s.interval))) {
			break
		}
		s.began = time.Now()
	}
	s.save()
}

// rest returns false when ctx has ended.
func (s *scrubber) rest(pause time.Duration) bool {
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
	return s.ctx.Err() == nil
}

// pass goes from the place to the last digest; false when ctx has ended.
func (s *scrubber) pass() bool {
	for _, alg := range slices.Sorted(slices.Values(s.names("blobs"))) {
		for _, two := range slices.Sorted(slices.Values(s.names("blobs/" + alg))) {
			if digest.Digest(alg+":"+two+"~") < s.after { // a whole shard
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
		if !s.visit(k.digest()) {
			return false
		}
	}
	return true
}

// visit verifies one blob and then rests for as long as its share of the interval lasts.
func (s *scrubber) visit(dg digest.Digest) bool {
	began := time.Now()
	s.mu.Lock()
	e, used := s.index.get(dg), max(s.used, blockSize)
	held := e != nil && !e.suspect // others verify suspects
	if held {
		s.tend(e)
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
		s.log.Error("blob has rotted on disk; it is fetched again when it is asked for", "digest", dg, "error", err)
		err = s.quarantine.put(s.ctx, e)
	case errors.Is(err, fs.ErrNotExist):
		err = s.room.remove(s.ctx, e)
	}
	share := time.Duration(float64(s.interval) * float64(e.blocks()) / float64(used))
	s.untend(e)
	if s.ctx.Err() != nil {
		return false
	}
	if err != nil {
		s.log.Warn("cannot scrub blob", "digest", dg, "error", err)
	}
	s.after = dg
	if time.Since(s.noted) >= scrubNote {
		s.save()
	}
	return s.rest(share - time.Since(began))
}

// verify hashes the file of a referenced entry, at the pace of the rate or slower.
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

// read reads one piece and waits until it may read the next one.
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
		pause = max(pause, took*slowPatience)
	}
	if !s.rest(pause) {
		return n, context.Cause(s.ctx)
	}
	return n, err
}

// save writes the place down. Losing it costs reading some blobs once more.
func (s *scrubber) save() {
	s.noted = time.Now()
	if err := s.writeFile(scrubFile, s.text()); err != nil {
		s.log.Warn("cannot record how far the cache has been verified", "error", err)
	}
}

// load reads the place, or starts at the beginning.
func (s *scrubber) load() {
	b, err := s.root.ReadFile(scrubFile)
	if err == nil {
		s.cursor, err = parseCursor(b)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("begins to verify the cache from the start", "error", err)
		}
		s.cursor = cursor{}
	}
	if s.began.IsZero() || s.began.After(time.Now()) {
		s.began = time.Now()
	}
	if !s.ended.IsZero() {
		s.m.passed.Store(s.ended.Unix())
	}
	s.noted = time.Now()
}

// text returns the file of a place: one "name value" on a line.
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
