package queue

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The journal is a file of lines. Each line is a record: the CRC-32C of its JSON as eight
// hexadecimal digits, a space, and the JSON. The first record has the version. A reader skips each
// line that is torn or does not match its checksum.

const (
	journalName    = "journal"
	journalVersion = 1
	// maxLine bounds the length of a line, in bytes. A manifest has at most 4 MiB, and a third more
	// when it is encoded in JSON (as base64).
	maxLine = 16 << 20
	// slack keeps a short file from being rewritten often. The file is rewritten, without obsolete
	// records, when it is longer than slack bytes plus twice its length after the last rewrite.
	slack = 1 << 20
)

// op is the kind of a record.
type op string

const (
	opVersion op = "journal"
	opPush    op = "push"   // the push in Entry was accepted
	opDone    op = "done"   // the push with this ID was forwarded or withdrawn
	opFailed  op = "failed" // the registry refused the push with this ID; Attempts is the number of attempts
	opRetry   op = "retry"  // the failed push with this ID waits again
)

type record struct {
	Op       op     `json:"op"`
	Version  int    `json:"version,omitempty"`
	ID       uint64 `json:"id,omitempty"` // for opVersion: the last ID that was allocated
	Entry    *Entry `json:"entry,omitempty"`
	Error    string `json:"error,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
}

// contents is what a journal says: the entries of the pushes that are not done yet.
type contents struct {
	lastID  uint64
	entries map[uint64]Entry
	damaged int // lines that could not be read
}

func (p *contents) sorted() []Entry {
	all := make([]Entry, 0, len(p.entries))
	for _, id := range slices.Sorted(maps.Keys(p.entries)) {
		all = append(all, p.entries[id])
	}
	return all
}

var errVersion = errors.New("a later version of dray wrote the journal")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line encodes a record as a line, including the line break.
func (r record) line() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(make([]byte, 0, len(body)+10), "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(b, body...), '\n'), nil
}

// parseLine decodes a line without its line break.
func parseLine(b []byte) (record, error) {
	var r record
	sum, body, ok := bytes.Cut(b, []byte(" "))
	if !ok || len(sum) != 8 {
		return r, errors.New("checksum is missing")
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return r, errors.New("checksum mismatch")
	}
	return r, json.Unmarshal(body, &r)
}

// replay reads a journal. A torn last line does not count as damage, because its record was never
// acknowledged.
func replay(r io.Reader) (contents, error) {
	p := contents{entries: map[uint64]Entry{}}
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, whole, err := readLine(in)
		if err == io.EOF && !whole {
			return p, nil
		}
		if err != nil && err != io.EOF {
			return p, err
		}
		rec, err := parseLine(line)
		if err == nil {
			err = p.apply(rec)
		}
		if errors.Is(err, errVersion) {
			return p, err
		}
		if err != nil {
			p.damaged++
		}
	}
}

// readLine reads up to a line break. whole reports whether the line ends with a line break.
// readLine cuts a line that is longer than maxLine, so the checksum of that line will not match.
func readLine(in *bufio.Reader) (line []byte, whole bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		switch err {
		case nil:
			return bytes.TrimSuffix(line, []byte("\n")), true, nil
		case bufio.ErrBufferFull:
		default:
			return line, false, err
		}
	}
}

// apply applies a record to the contents.
func (p *contents) apply(r record) error {
	if r.Op == opVersion {
		if r.Version > journalVersion {
			return fmt.Errorf("%w: %d", errVersion, r.Version)
		}
		p.lastID = max(p.lastID, r.ID)
		return nil
	}
	if r.Op == opPush {
		return p.push(r.Entry)
	}
	e, ok := p.entries[r.ID]
	if !ok {
		return nil // the push is done already, or the line that added it was lost
	}
	switch r.Op {
	case opDone:
		delete(p.entries, r.ID)
		return nil
	case opFailed:
		e.State, e.Error, e.Attempts = Failed, r.Error, r.Attempts
	case opRetry:
		e.State, e.Error, e.Attempts = Waiting, "", 0
	default:
		return fmt.Errorf("unknown record %q", r.Op)
	}
	p.entries[r.ID] = e
	return nil
}

func (p *contents) push(e *Entry) error {
	if e == nil || e.ID == 0 || e.Upstream == "" || e.Repository == "" || e.Reference == "" || e.Digest.Validate() != nil {
		return errors.New("incomplete push")
	}
	for _, b := range e.Blobs {
		if b.Digest.Validate() != nil || b.Size < 0 {
			return errors.New("a blob without a digest or size")
		}
	}
	if e.State != Failed {
		e.State = Waiting
	}
	e.Next = time.Time{}
	p.entries[e.ID] = *e
	p.lastID = max(p.lastID, e.ID)
	return nil
}

// journal is the open file of the journal. Only one goroutine may use it at a time.
type journal struct {
	dir    string
	file   *os.File // nil until a rewrite has succeeded
	size   int64    // bytes of the file
	floor  int64    // bytes of the file after the last rewrite
	broken bool     // a write has failed, so the file must be rewritten before the next record
	// aside is the second name that the method rewrite gives to a damaged file before replacing it.
	// aside is empty if the file has no unreadable lines.
	aside  string
	closed bool // no record can be appended, but Withdrawal.Restore may still rewrite the file
	sync   func(*os.File) error
}

// openJournal reads the journal and rewrites it. A damaged journal is kept under another name. If
// the disk is too full for a rewrite, openJournal returns the error as fullErr. The old file then
// stays, and j.broken is set, as after any failed write.
func openJournal(o Options, log *slog.Logger) (j *journal, p contents, fullErr, err error) {
	j = &journal{dir: o.Directory, sync: (*os.File).Sync}
	if o.Sync != nil {
		j.sync = func(*os.File) error { return o.Sync() }
	}
	if p, err = j.read(); err != nil {
		return nil, p, nil, err
	}
	if p.damaged > 0 {
		j.aside = j.damagedPath()
		log.Error("journal of pushes is damaged; some acknowledged pushes may be lost", "records", p.damaged, "moved_to", j.aside)
	}
	err = j.rewrite(p)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return j, p, err, nil
	}
	return j, p, nil, err
}

func (j *journal) path() string { return filepath.Join(j.dir, journalName) }

// damagedPath returns a free name for a damaged journal. An earlier damaged journal keeps its name,
// because it may be the only trace of lost pushes.
func (j *journal) damagedPath() string {
	name := j.path() + ".damaged"
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		name = j.path() + ".damaged." + strconv.Itoa(i)
	}
}

func (j *journal) read() (contents, error) {
	f, err := os.Open(j.path())
	if errors.Is(err, fs.ErrNotExist) {
		return contents{}, nil
	}
	if err != nil {
		return contents{}, err
	}
	defer f.Close()
	return replay(f)
}

// append writes a record and returns when it is on stable storage. snapshot returns the contents
// for a new file, without the record. If the write fails, append rewrites the file. If that
// fails, too, the file may still have the record, and a later process may find it there. The next
// append then rewrites the file first.
func (j *journal) append(r record, snapshot func() contents) error {
	if j.closed {
		return os.ErrClosed
	}
	if j.broken || j.size > 2*j.floor+slack {
		if err := j.rewrite(snapshot()); err != nil {
			return err
		}
	}
	line, err := r.line()
	if err != nil {
		return err
	}
	_, err = j.file.Write(line)
	if err == nil {
		err = j.sync(j.file)
	}
	if err != nil {
		j.broken = true
		return errors.Join(err, j.rewrite(snapshot())) // removes the part of the record that was written
	}
	j.size += int64(len(line))
	return nil
}

// rewrite replaces the file by one that has only the entries of p. If an error occurs before the
// rename or in it, the old file is still in place. If the sync of the directory fails after the
// rename, a later process finds either the old file or the whole new file.
func (j *journal) rewrite(p contents) error {
	j.broken = true
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	tmp := j.path() + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	n, err := p.write(f)
	if err == nil {
		err = j.sync(f)
	}
	if err == nil && j.aside != "" {
		err = j.keepDamaged()
	}
	if err == nil {
		err = os.Rename(tmp, j.path())
	}
	if err == nil {
		err = j.syncDir()
	}
	if err != nil {
		_ = os.Remove(tmp) // a partial file would take up space
		return errors.Join(err, f.Close())
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.size, j.floor, j.broken = f, n, n, false
	return nil
}

// keepDamaged gives the damaged file a second name. The first name stays until the new file is
// renamed to it, so a crash in between loses nothing.
func (j *journal) keepDamaged() error {
	if err := os.Link(j.path(), j.aside); err != nil {
		return err
	}
	j.aside = ""
	return nil
}

// write writes a whole journal and returns its length in bytes.
func (p *contents) write(w io.Writer) (n int64, err error) {
	out := bufio.NewWriter(w)
	put := func(r record) error {
		line, err := r.line()
		if err != nil {
			return err
		}
		m, err := out.Write(line)
		n += int64(m)
		return err
	}
	err = put(record{Op: opVersion, Version: journalVersion, ID: p.lastID})
	for _, e := range p.sorted() {
		if err == nil {
			err = put(record{Op: opPush, Entry: &e})
		}
	}
	return n, errors.Join(err, out.Flush())
}

func (j *journal) syncDir() error {
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) close() error {
	j.closed = true
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
