package pipeline

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
)

// Limits bound a walk: the one pass over the files of a layer for all stages. The walk stops when
// the layer exceeds a limit.
type Limits struct {
	// MaxRatio bounds the ratio of uncompressed to stored bytes; 0 means 200. It is checked only
	// beyond 64 MiB of uncompressed bytes.
	MaxRatio int
	// MaxEntries bounds the number of entries of an archive; 0 means 1,000,000.
	MaxEntries int
	// MaxDepth bounds how deep directories are nested; 0 means 128.
	MaxDepth int
	// MaxPath bounds each path, in bytes; 0 means 4096.
	MaxPath int
	// MaxBytes bounds a layer, in uncompressed bytes; 0 means 100 GiB.
	MaxBytes int64
	// MaxWindow bounds the window of a layer that is compressed with zstd, in bytes. 0 means 128 MiB,
	// which is also the default limit of the zstd program.
	MaxWindow int64
}

func (l Limits) withDefaults() Limits {
	return Limits{
		MaxRatio:   cmp.Or(max(l.MaxRatio, 0), 200),
		MaxEntries: cmp.Or(max(l.MaxEntries, 0), 1_000_000),
		MaxDepth:   cmp.Or(max(l.MaxDepth, 0), 128),
		MaxPath:    cmp.Or(max(l.MaxPath, 0), 4096),
		MaxBytes:   cmp.Or(max(l.MaxBytes, 0), 100<<30),
		MaxWindow:  cmp.Or(max(l.MaxWindow, 0), 128<<20),
	}
}

// ArchiveStage is the stage name in findings of the walk itself.
const ArchiveStage = "archive"

// walkVersion is increased whenever a change of the code changes the results of a walk.
const walkVersion = 4

// ratioFrom is the number of uncompressed bytes up to which the ratio is not checked, because small
// layers of zeros are common and harmless.
const ratioFrom = 64 << 20

// Formats of a layer's blob.
const (
	FormatTar   = "tar"
	FormatGzip  = "tar+gzip"
	FormatZstd  = "tar+zstd"
	FormatBzip2 = "tar+bzip2"
	FormatXZ    = "xz"
	FormatLzip  = "lzip"
	Format7z    = "7z"
	FormatEROFS = "erofs"
	FormatOther = "other" // not an archive, for example a configuration or an SBOM
	FormatEmpty = "empty"
)

// unreadFormats are the formats that the walk does not read, although runtimes or users unpack
// them. The values are the descriptions of the formats in findings.
var unreadFormats = map[string]string{
	FormatXZ: "compressed with xz", FormatLzip: "compressed with lzip", Format7z: "an archive of 7-Zip", FormatEROFS: "a file system of the form EROFS",
}

// magics are the bytes by which [detect] recognises formats.
var magics = []struct {
	format string
	at     int
	magic  string
}{
	{FormatGzip, 0, "\x1f\x8b"},
	{FormatZstd, 0, "\x28\xb5\x2f\xfd"},
	{FormatBzip2, 0, "BZh"},
	{FormatXZ, 0, "\xfd7zXZ\x00"},
	{FormatLzip, 0, "LZIP"},
	{Format7z, 0, "7z\xbc\xaf\x27\x1c"},
	{FormatEROFS, 1024, "\xe2\xe1\xf5\xe0"}, // containerd 2.1 mounts layers of this form
}

// Archive describes a layer's blob, as the walk found it.
type Archive struct {
	Format string `json:"format"`
	// Size is the number of bytes as stored. Uncompressed is the number of bytes after decompression.
	Size         int64 `json:"size"`
	Uncompressed int64 `json:"uncompressed"`
	Entries      int   `json:"entries"`
	// DiffID is the digest of the uncompressed archive, computed by the walk. It is empty if the walk
	// did not read the blob as an archive, or stopped before the end.
	DiffID digest.Digest `json:"diffID,omitempty"`
}

// layerFault reports a layer that cannot be read or that exceeds a limit. It becomes a finding, and
// is not a failure of the walk.
type layerFault struct{ rule, what, path, fix string }

func (b *layerFault) Error() string { return b.what }

func (b *layerFault) finding() Finding {
	return Finding{Rule: b.rule, What: b.what, Where: Place{Path: b.path}, Fix: b.fix}
}

func exceeds(rule, path, format string, args ...any) error {
	return &layerFault{rule: rule, what: fmt.Sprintf(format, args...), path: path, fix: "build a layer that stays within the limit, or ask the operator of dray to raise it"}
}

// storedReader counts the bytes of the layer as stored. It records the error of a failed read, so
// that such an error can be distinguished from malformed content.
type storedReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *storedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// archiveReader counts and hashes the uncompressed archive, and checks the limits on its length.
type archiveReader struct {
	r      io.Reader
	stored *storedReader
	limits Limits
	// entryPath is the path of the entry that is read.
	entryPath *string
	n         int64
	sum       hash.Hash
}

func (g *archiveReader) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	g.n += int64(n)
	g.sum.Write(p[:n])
	if lerr := g.check(g.n, *g.entryPath); lerr != nil {
		return n, lerr
	}
	return n, err
}

// check returns an error if n uncompressed bytes exceed a limit. The error names the given path.
func (g *archiveReader) check(n int64, path string) error {
	if n > g.limits.MaxBytes {
		return exceeds("size", path, "the layer has more than %d bytes uncompressed", g.limits.MaxBytes)
	}
	if n > ratioFrom && n/int64(g.limits.MaxRatio) > max(g.stored.n, 1) {
		return exceeds("ratio", path, "the layer grows to more than %d times its size", g.limits.MaxRatio)
	}
	return nil
}

// walk passes the files of a layer to the visitors. It reads the layer to the end, unless there is
// an error. The error is a *layerFault if the layer itself is at fault.
func walk(ctx context.Context, r io.Reader, limits Limits, workers *Workers, visitors fanOut) (Archive, error) {
	w := &walker{ctx: ctx, limits: limits, workers: workers, visitors: visitors, stored: &storedReader{r: r}}
	err := w.run()
	w.archive.Size = w.stored.n
	if w.stored.err != nil {
		return w.archive, w.stored.err
	}
	if ctx.Err() != nil {
		return w.archive, context.Cause(ctx)
	}
	if _, own := errors.AsType[*layerFault](err); err != nil && !own {
		err = &layerFault{rule: "unreadable", what: "the layer cannot be read: " + err.Error(), path: w.entryPath, fix: rebuild}
	}
	return w.archive, err
}

type walker struct {
	ctx      context.Context
	limits   Limits
	workers  *Workers // if nil, the walk rejects windows of zstd above smallWindow
	visitors fanOut
	// entryPath is the path of the entry that is read; faults name it.
	entryPath string
	stored    *storedReader
	archive   Archive
	// logical is the sum of the sizes that the entries state. It exceeds the number of bytes read if
	// files are sparse.
	logical int64
}

func (w *walker) run() error {
	plain, err := w.open()
	if plain == nil || err != nil {
		return err
	}
	defer plain.Close()
	g := &archiveReader{r: plain, stored: w.stored, limits: w.limits, entryPath: &w.entryPath, sum: sha256.New()}
	whole := bufio.NewReaderSize(g, 64<<10)
	archive, err := isTar(whole)
	if err != nil {
		return err
	}
	if !archive { // compressed, but not an archive
		w.archive.Format = FormatOther
		err := w.whole(whole)
		w.archive.Uncompressed = g.n
		return err
	}
	if err = w.entries(tar.NewReader(whole), g); err == nil {
		// Read the bytes after the end of the archive, because they are part of the digest.
		_, err = io.Copy(io.Discard, whole)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, w.stored)
	}
	if w.archive.Uncompressed = g.n; err == nil {
		w.archive.DiffID = digest.NewDigest(digest.SHA256, g.sum)
	}
	return err
}

// open detects the format of the layer and returns its uncompressed bytes. For a format that the
// walk does not unpack, open passes the blob to the visitors as one entry, and plain is nil.
func (w *walker) open() (plain io.ReadCloser, err error) {
	b := bufio.NewReaderSize(w.stored, 64<<10)
	w.archive.Format = detect(b)
	switch w.archive.Format {
	case FormatGzip:
		return gzip.NewReader(b)
	case FormatBzip2:
		return io.NopCloser(bzip2.NewReader(b)), nil
	case FormatZstd:
		return w.unzstd(b)
	case FormatTar:
		return io.NopCloser(b), nil
	}
	counted := &storedReader{r: b}
	err = w.whole(counted)
	w.archive.Uncompressed = counted.n
	return nil, err
}

// single reports whether the walk passed the blob to the visitors as one file instead of reading it
// as an archive.
func (a Archive) single() bool {
	return a.Format == FormatOther || unreadFormats[a.Format] != ""
}

// Partial reports whether the blob is an archive that the walk has not read to its end.
func (a Archive) Partial() bool {
	switch a.Format {
	case FormatTar, FormatGzip, FormatZstd, FormatBzip2:
		return a.DiffID == ""
	}
	return false
}

// [walker.whole] passes a blob to the visitors as one entry, unless it is empty.
func (w *walker) whole(r io.Reader) error {
	if w.archive.Format == FormatEmpty {
		return nil
	}
	if err := w.visitors.file(&Entry{Type: tar.TypeReg, Size: -1, Whole: true}, r); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// detect returns the format of a blob by its first bytes.
func detect(b *bufio.Reader) string {
	head, _ := b.Peek(1028) // a read that fails here fails again later
	if len(head) == 0 {
		return FormatEmpty
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return FormatZstd // a frame to be skipped (RFC 8878, 3.1.2)
	}
	for _, m := range magics {
		if len(head) > m.at && bytes.HasPrefix(head[m.at:], []byte(m.magic)) {
			return m.format
		}
	}
	if archive, err := isTar(b); archive && err == nil {
		return FormatTar
	}
	return FormatOther
}

// isTar reports whether the bytes are an archive. It checks the first header as archive/tar does:
// by its magic or, in the oldest format, by its checksum. An archive without entries consists of
// blocks of zeros, or of no bytes. The error comes from reading b.
func isTar(b *bufio.Reader) (bool, error) {
	block, err := b.Peek(512)
	if err != nil {
		if err == io.EOF {
			err = nil
		}
		return len(block) == 0, err
	}
	if bytes.Equal(block, make([]byte, 512)) {
		return true, nil
	}
	_, err = tar.NewReader(bytes.NewReader(block)).Next()
	// The header is also valid if one of these errors occurs: the entry's content is missing, or its
	// path is insecure.
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrInsecurePath), nil
}

func (w *walker) entries(r *tar.Reader, g *archiveReader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			w.entryPath = ""
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		e, err := w.entry(h)
		if err != nil {
			return err
		}
		w.entryPath = e.Path
		// A sparse file can state any size. The sum must not overflow.
		w.logical += min(max(0, h.Size), math.MaxInt64-w.logical)
		if w.logical > g.n { // otherwise Read has already checked this many bytes
			if err := g.checkLogical(w.logical, e.Path, h); err != nil {
				return err
			}
		}
		if err := w.visitors.file(e, r); err != nil {
			return err
		}
	}
}

// checkLogical checks n, the sum of the sizes that the entries state, against MaxBytes. It checks
// the ratio only for a sparse file, whose holes need no bytes in the archive. For other files,
// [archiveReader.Read] checks the ratio.
func (g *archiveReader) checkLogical(n int64, path string, h *tar.Header) error {
	if n > g.limits.MaxBytes {
		return exceeds("size", path, "the files of the layer have more than %d bytes", g.limits.MaxBytes)
	}
	if sparse(h) {
		return g.check(n, path)
	}
	return nil
}

func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// capabilities is the name of a PAX record with the capabilities of a file. Runtimes copy the
// record to an extended attribute of the file (moby, pkg/archive).
const capabilities = "SCHILY.xattr.security.capability"

func (w *walker) entry(h *tar.Header) (*Entry, error) {
	w.archive.Entries++
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if w.archive.Entries > w.limits.MaxEntries {
		return nil, exceeds("entries", name, "the layer has more than %d entries", w.limits.MaxEntries)
	}
	if len(h.Name) > w.limits.MaxPath || len(h.Linkname) > w.limits.MaxPath {
		return nil, exceeds("path", name, "a path of the layer is longer than %d bytes", w.limits.MaxPath)
	}
	if strings.Count(name, "/") >= w.limits.MaxDepth {
		return nil, exceeds("depth", name, "directories of the layer are nested deeper than %d", w.limits.MaxDepth)
	}
	return &Entry{Path: name, Type: h.Typeflag, Mode: h.Mode, UID: h.Uid, GID: h.Gid, Size: h.Size, Target: h.Linkname, Capabilities: h.PAXRecords[capabilities] != ""}, nil
}

// fanOut passes the files of one walk to all visitors, which share a buffer.
type fanOut struct {
	participants []*participant
	buf          []byte
}

// participant is one visitor of a walk.
type participant struct {
	step    Step
	visitor Visitor
	err     error // the error that ended the visitor's part
	spent   time.Duration
	wants   bool
}

func (a fanOut) file(e *Entry, content io.Reader) error {
	wanted := false
	for _, s := range a.participants {
		s.wants = false
		s.do(func() (err error) { s.wants, err = s.visitor.Begin(e); return err })
		s.wants = s.wants && s.err == nil && e.Size != 0
		wanted = wanted || s.wants
	}
	for wanted {
		n, err := content.Read(a.buf)
		wanted = false
		for _, s := range a.participants {
			if s.wants && n > 0 {
				s.do(func() error { return s.visitor.Data(a.buf[:n]) })
			}
			s.wants = s.wants && s.err == nil
			wanted = wanted || s.wants
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, s := range a.participants {
		if s.wants {
			s.do(s.visitor.End)
		}
	}
	return nil
}

var errSlow = errors.New("time limit exceeded")

// [participant.do] makes a call to the visitor, unless the visitor's part has ended. It records an
// error, a panic, or an exceeded time limit.
func (s *participant) do(call func() error) {
	if s.err != nil {
		return
	}
	start := time.Now()
	err := recovered(call)
	if s.spent += time.Since(start); err == nil && s.spent > s.step.layerTime() {
		err = s.step.slow(s.step.layerTime(), " for one layer")
	}
	s.err = err
}

// recovered makes a call and returns its error. A panic becomes an error, too.
func recovered(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return call()
}

// close closes the visitor, and returns its result with at most MaxLayerFindings findings.
func (s *participant) close(complete bool) (r LayerResult, err error) {
	failed := s.err
	s.err = nil
	s.do(func() (err error) { r, err = s.visitor.Close(complete && failed == nil); return err })
	if failed = cmp.Or(failed, s.err); failed != nil {
		return LayerResult{}, failed
	}
	if len(r.Facts) > MaxFacts {
		return LayerResult{}, fmt.Errorf("the stage returned facts of %d bytes, more than %d", len(r.Facts), MaxFacts)
	}
	if more := len(r.Findings) - MaxLayerFindings; more > 0 {
		r.Findings, r.More = r.Findings[:MaxLayerFindings], r.More+more
	}
	for i, f := range r.Findings {
		r.Findings[i] = f.complete(s.step.Stage.Name(), "")
	}
	if r.Facts != nil && !json.Valid(r.Facts) {
		return LayerResult{}, errors.New("the stage returned facts that are not JSON")
	}
	return r, nil
}

// rebuild is the advice about a layer that cannot be read, or is not what its manifest says.
const rebuild = "build and push the image again"

// Scanned holds the results of all stages for one layer.
type Scanned struct {
	Archive Archive
	// results has the results by stage. errs has the errors, by stage, of the stages that gave no
	// result.
	results map[string]LayerResult
	errs    map[string]error
}

// Complete reports whether another walk of the layer would find nothing new.
func (s *Scanned) Complete() bool {
	for _, err := range s.errs {
		if !errors.Is(err, errUnread) {
			return false
		}
	}
	return true
}
