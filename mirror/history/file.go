package history

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A file begins with a line: a JSON array with the names of the columns. The samples follow. A
// sample is the length of its text, the text, and a checksum of the text. The text is binary: it
// has varints of the seconds since the day began, and then of the values.

// sample has the values of one time: gauges, and the growth of counters since the previous sample.
type sample struct {
	at time.Time
	values
}

const (
	extension  = ".samples"
	unfinished = extension + ".new" // extension of a file that repair has not finished
	maxSample  = (width + 1) * binary.MaxVarintLen64
)

// header is the first line of a file.
func header() []byte {
	line, _ := json.Marshal(columns[:]) // strings can always be marshalled
	return append(line, '\n')
}

// append appends a sample to the text of a file.
func (s sample) append(to []byte) []byte {
	at := s.at.UTC()
	text := binary.AppendUvarint(make([]byte, 0, 64), uint64(at.Sub(at.Truncate(day))/time.Second))
	for _, v := range s.values {
		text = binary.AppendVarint(text, v)
	}
	to = append(binary.AppendUvarint(to, uint64(len(text))), text...)
	return binary.LittleEndian.AppendUint32(to, crc32.ChecksumIEEE(text))
}

// day is the time that a file covers.
const day = 24 * time.Hour

// nameOf returns the name of the file of a day.
func nameOf(t time.Time) string { return t.UTC().Format(time.DateOnly) + extension }

// dayOf returns the day of a file of samples, and whether name is the name of such a file.
func dayOf(name string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, strings.TrimSuffix(name, extension))
	return t, err == nil && strings.HasSuffix(name, extension)
}

// read calls visit for each sample of a file, up to the first wrong length or checksum. intact is
// true if the lengths and checksums of all samples are right, and the file has the columns of this
// program.
func read(text []byte, of time.Time, visit func(sample)) (intact bool) {
	line, rest, found := bytes.Cut(text, []byte("\n"))
	var names []string
	if err := json.Unmarshal(line, &names); err != nil || !found {
		return false
	}
	to := make([]int, len(names)) // the column of each value, or -1 if it is unknown
	for i, name := range names {
		to[i] = slices.Index(columns[:], name)
	}
	for len(rest) > 0 {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(4*maxSample) || uint64(len(rest)-n) < size+crc32.Size {
			return false
		}
		one := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		if binary.LittleEndian.Uint32(rest) != crc32.ChecksumIEEE(one) {
			return false
		}
		rest = rest[crc32.Size:]
		if s, ok := parse(one, of, to); ok {
			visit(s)
		}
	}
	return slices.Equal(names, columns[:])
}

func parse(text []byte, of time.Time, to []int) (s sample, ok bool) {
	seconds, n := binary.Uvarint(text)
	if n <= 0 || seconds > uint64(day/time.Second) {
		return s, false
	}
	s.at = of.Add(time.Duration(seconds) * time.Second)
	for _, column := range to {
		text = text[n:]
		var v int64
		if v, n = binary.Varint(text); n <= 0 {
			return s, false
		}
		if column >= 0 {
			s.values[column] = v
		}
	}
	return s, true
}

// repair rewrites the file of a day unless the function read finds the file intact. The new file
// has the columns of this program, and the samples that can be read.
func repair(name string, of time.Time) error {
	text, err := os.ReadFile(filepath.Clean(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	whole := header()
	if read(text, of, func(s sample) { whole = s.append(whole) }) {
		return nil
	}
	f, err := os.OpenFile(strings.TrimSuffix(name, extension)+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(whole)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// extend appends a sample to the file of its day. If that fails, the file stays as it was.
func extend(directory string, s sample) (err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(directory, nameOf(s.at)), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var text []byte
	if info.Size() == 0 {
		text = header()
	}
	if _, err = f.Write(s.append(text)); err != nil {
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return nil
}

// trim removes the oldest files until the rest have at most the given number of bytes. It also
// removes the unfinished files that failed repairs have left.
func trim(directory string, limit int64) error {
	entries, err := os.ReadDir(directory) // sorted by name, and so by day
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range slices.Backward(entries) {
		if strings.HasSuffix(e.Name(), unfinished) {
			errs = append(errs, os.Remove(filepath.Join(directory, e.Name())))
		}
		if _, ok := dayOf(e.Name()); !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it is gone
		}
		if limit -= info.Size(); limit < 0 {
			errs = append(errs, os.Remove(filepath.Join(directory, e.Name())))
		}
	}
	return errors.Join(errs...)
}
