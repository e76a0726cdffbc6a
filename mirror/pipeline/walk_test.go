package pipeline

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// file is an entry of an archive that a test makes.
type file struct {
	name string
	text string
	head tar.Header
}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.head
		h.Name, h.Size = f.name, int64(len(f.text))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(p)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(p, nil)
}

// noting is a stage and visitor that records the calls.
type noting struct {
	name  string
	seen  []string
	begin func(e *Entry) (bool, error)
	data  func(p []byte) error
	facts string
	found []Finding
}

func (n *noting) Name() string                                 { return n.name }
func (n *noting) Revision() string                             { return Revision(1, n.facts) }
func (n *noting) Open(context.Context, Layer) (Visitor, error) { return n, nil }

// notingEach is a noting with a visitor of its own for each layer, because a pipeline reads several
// layers at the same time.
type notingEach struct{ *noting }

func (n notingEach) Open(context.Context, Layer) (Visitor, error) {
	visitor := *n.noting
	return &visitor, nil
}

func (n *noting) Begin(e *Entry) (bool, error) {
	n.seen = append(n.seen, e.Path)
	if n.begin != nil {
		return n.begin(e)
	}
	return e.Regular(), nil
}

func (n *noting) Data(p []byte) error {
	if n.data != nil {
		return n.data(p)
	}
	n.seen = append(n.seen, "="+string(p))
	return nil
}

func (n *noting) End() error { n.seen = append(n.seen, "."); return nil }

func (n *noting) Close(complete bool) (LayerResult, error) {
	n.seen = append(n.seen, fmt.Sprint(complete))
	r := LayerResult{Findings: n.found}
	if n.facts != "" {
		r.Facts = []byte(n.facts)
	}
	return r, nil
}

func walked(t testing.TB, layer []byte, l Limits, visitors ...*noting) (Archive, error) {
	t.Helper()
	a := fanOut{buf: make([]byte, 4096)}
	for _, v := range visitors {
		a.participants = append(a.participants, &participant{step: Step{Stage: v}, visitor: v})
	}
	return walk(t.Context(), bytes.NewReader(layer), l.withDefaults(), nil, a)
}

func TestWalkReadsEveryFormat(t *testing.T) {
	plain := archive(t, file{name: "./etc/passwd", text: "root:x:0:0"}, file{name: "/a//b/../c", text: ""}, file{name: "../../up", text: "x"})
	for _, tc := range []struct {
		format string
		layer  []byte
	}{{FormatTar, plain}, {FormatGzip, gzipped(t, plain)}, {FormatZstd, zstded(t, plain)}} {
		v := &noting{name: "v"}
		a, err := walked(t, tc.layer, Limits{}, v)
		if err != nil {
			t.Fatalf("%s: %v", tc.format, err)
		}
		if a.Format != tc.format || a.Entries != 3 || a.Size != int64(len(tc.layer)) || a.Uncompressed != int64(len(plain)) || a.DiffID != digest.FromBytes(plain) || a.Partial() {
			t.Errorf("%s: %+v", tc.format, a)
		}
		if got := strings.Join(v.seen, " "); got != "etc/passwd =root:x:0:0 . a/c up =x ." {
			t.Errorf("%s: saw %s", tc.format, got)
		}
	}
}

func TestWalkTakesWhatIsNoArchive(t *testing.T) {
	for name, tc := range map[string]struct {
		layer  []byte
		format string
	}{
		"nothing": {nil, FormatEmpty}, "short": {[]byte("x"), FormatOther}, "configuration": {bytes.Repeat([]byte(`{"os":"linux"}`), 100), FormatOther},
		"an archive of nothing, compressed": {gzipped(t, nil), FormatGzip}, "the same with zstd": {zstded(t, nil), FormatZstd},
		"compressed text": {gzipped(t, bytes.Repeat([]byte("text"), 1000)), FormatOther},
	} {
		a, err := walked(t, tc.layer, Limits{})
		if err != nil || a.Format != tc.format || a.Size != int64(len(tc.layer)) || a.Entries != 0 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// A blob that is no archive is one entry without a path.
func TestWalkShowsWhatIsNoArchive(t *testing.T) {
	text := bytes.Repeat([]byte("text"), 1000)
	for name, layer := range map[string][]byte{"plain": text, "gzip": gzipped(t, text), "zstd": zstded(t, text)} {
		v := &noting{name: "v"}
		var got []byte
		v.begin = func(e *Entry) (bool, error) { return e.Whole && e.Path == "" && e.Regular(), nil }
		v.data = func(p []byte) error { got = append(got, p...); return nil }
		if a, err := walked(t, layer, Limits{}, v); err != nil || a.Size != int64(len(layer)) || a.Uncompressed != int64(len(text)) || !bytes.Equal(got, text) {
			t.Errorf("%s: %+v, %v, %d bytes", name, a, err, len(got))
		}
	}
}

func TestWalkReadsBzip2(t *testing.T) {
	v := &noting{name: "v"}
	a, err := walked(t, bzipped, Limits{}, v)
	if got := strings.Join(v.seen, " "); err != nil || a.Format != FormatBzip2 || a.Size != int64(len(bzipped)) || got != "a =x ." {
		t.Errorf("%+v, %v: saw %s", a, err, got)
	}
	_, err = walked(t, bzipped[:60], Limits{})
	if b, own := errors.AsType[*layerFault](err); !own || b.rule != "unreadable" {
		t.Errorf("cut: %v", err)
	}
}

// Faults name the file in which they are met.
func TestFaultsNameTheFile(t *testing.T) {
	zeros := string(make([]byte, 80<<20))
	around := archive(t, file{name: "before", text: "x"}, file{name: "opt/zeros", text: zeros}, file{name: "after"})
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	damaged := gzipped(t, archive(t, file{name: "before", text: "x"}, file{name: "var/cut", text: string(noise)}))[:600<<10]
	for _, tc := range []struct {
		rule, path string
		layer      []byte
		limits     Limits
	}{
		{"ratio", "opt/zeros", gzipped(t, around), Limits{}},
		{"size", "opt/zeros", around, Limits{MaxBytes: 1 << 20}},
		{"unreadable", "var/cut", damaged, Limits{}},
	} {
		a, err := walked(t, tc.layer, tc.limits, &noting{name: "v", data: func([]byte) error { return nil }})
		if b, own := errors.AsType[*layerFault](err); !own || b.rule != tc.rule || b.path != tc.path {
			t.Errorf("%s in %s: %+v", tc.rule, tc.path, err)
		}
		if a.DiffID != "" || !a.Partial() { // the digest of a part is none
			t.Errorf("%s in %s: %+v", tc.rule, tc.path, a)
		}
	}
}

func TestWalkIsBounded(t *testing.T) {
	zeros := archive(t, file{name: "zeros", text: string(make([]byte, 80<<20))})
	many := make([]file, 20)
	for i := range many {
		many[i] = file{name: fmt.Sprintf("f%d", i)}
	}
	deep := file{name: strings.Repeat("d/", 40) + "f"}
	ok := archive(t, file{name: "f", text: "x"})
	for _, tc := range []struct {
		rule   string
		layer  []byte
		limits Limits
	}{
		{"ratio", gzipped(t, zeros), Limits{}},
		{"ratio", zstded(t, zeros), Limits{MaxRatio: 100}},
		{"ratio", gzipped(t, append(bytes.Clone(ok), zeros...)), Limits{}}, // behind the end of the archive
		{"ratio", gzipped(t, zeros[600:]), Limits{}},                       // compressed, and no archive
		{"size", zeros, Limits{MaxBytes: 1 << 20}},
		{"entries", archive(t, many...), Limits{MaxEntries: 19}},
		{"depth", archive(t, deep), Limits{MaxDepth: 40}},
		{"path", archive(t, deep), Limits{MaxPath: 80}},
		{"unreadable", gzipped(t, ok)[:40], Limits{}},
		{"unreadable", gzipped(t, archive(t, file{name: "f", text: strings.Repeat("x", 5000)})[:2000]), Limits{}},
		{"unreadable", append(gzipped(t, ok), "rest"...), Limits{}},
		{"unreadable", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 100)...), Limits{}},
	} {
		_, err := walked(t, tc.layer, tc.limits)
		b, own := errors.AsType[*layerFault](err)
		if !own || b.rule != tc.rule {
			t.Errorf("%s of %d bytes: %v", tc.rule, len(tc.layer), err)
		}
	}
	if _, err := walked(t, archive(t, many...), Limits{MaxEntries: 20}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

// A sparse file states a size that costs nothing to store.
func TestWalkCountsSparseFiles(t *testing.T) {
	raw := sparseArchive(1 << 40)
	_, err := walked(t, raw, Limits{MaxBytes: 1 << 50}, &noting{name: "v"})
	if b, own := errors.AsType[*layerFault](err); !own || b.rule != "ratio" {
		t.Errorf("a hole of 1 TiB: %v", err)
	}
	before := archive(t, file{name: "f", text: "x"})
	raw = append(before[:len(before)-1024], sparseArchive(math.MaxInt64)...) // the sum of both sizes overflows
	_, err = walked(t, raw, Limits{MaxBytes: 1 << 50}, &noting{name: "v"})
	if b, own := errors.AsType[*layerFault](err); !own || b.rule != "size" {
		t.Errorf("a hole of 8 EiB after a file: %v", err)
	}
}

// sparseArchive is an archive with one file in the old GNU format that is a hole.
func sparseArchive(size int64) []byte {
	block := make([]byte, 512)
	copy(block, "hole")
	copy(block[100:], "0000600\x00")
	copy(block[108:], "0000000\x00")
	copy(block[116:], "0000000\x00")
	copy(block[124:], "00000000000\x00")
	copy(block[136:], "00000000000\x00")
	block[156] = tar.TypeGNUSparse
	copy(block[257:], "ustar  \x00")
	copy(block[483:], fmt.Sprintf("%011o\x00", min(size, 1<<33-1)))
	if size >= 1<<33 { // base 256
		n := block[483:495]
		clear(n)
		for i, v := len(n)-1, size; v > 0; i, v = i-1, v>>8 {
			n[i] = byte(v)
		}
		n[0] |= 0x80
	}
	copy(block[148:], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(block, make([]byte, 1024)...)
}

// A file is read only while somebody wants it. The hole of a sparse file may have any size.
func TestNobodyWantsTheRest(t *testing.T) {
	v := &noting{data: func([]byte) error { return errors.New("no") }}
	a := fanOut{participants: []*participant{{step: Step{Stage: v}, visitor: v}}, buf: make([]byte, 10)}
	content := strings.NewReader(strings.Repeat("x", 100))
	if err := a.file(&Entry{Path: "f", Type: tar.TypeReg, Size: 100}, content); err != nil || content.Len() != 90 {
		t.Errorf("%v, %d bytes left", err, content.Len())
	}
}

func TestFailingVisitorsLeaveTheOthersAlone(t *testing.T) {
	good := &noting{name: "good"}
	p, err := New(Options{Name: "p", Steps: []Step{
		{Stage: &noting{name: "panics", begin: func(*Entry) (bool, error) { panic("oops") }}},
		{Stage: &noting{name: "fails", data: func([]byte) error { return errors.New("no") }}},
		{Stage: &noting{name: "slow", data: func([]byte) error { return nil }}, Within: 1},
		{Stage: &noting{name: "talks", facts: `"` + strings.Repeat("x", MaxFacts) + `"`}},
		{Stage: good},
	}})
	if err != nil {
		t.Fatal(err)
	}
	layer := archive(t, file{name: "f", text: "content"})
	s, err := p.Scan(t.Context(), Layer{}, bytes.NewReader(layer), func() (digest.Digest, error) { return digest.FromBytes(layer), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"panics", "fails", "slow", "talks"} {
		if s.errs[name] == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := strings.Join(good.seen, " "); got != "f =content . true" || s.errs["good"] != nil {
		t.Errorf("the good one saw %s, %v", got, s.errs)
	}
}

func FuzzWalk(f *testing.F) {
	plain := archive(f, file{name: "a/b", text: "text"}, file{name: "l", head: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "a"}})
	for _, seed := range [][]byte{plain, gzipped(f, plain), zstded(f, plain), sparseArchive(1 << 40), nil, plain[:700], {0x1f, 0x8b}, {0x28, 0xb5, 0x2f, 0xfd}, bzipped} {
		f.Add(seed)
	}
	limits := Limits{MaxBytes: 8 << 20, MaxEntries: 100, MaxDepth: 20, MaxPath: 200}
	f.Fuzz(func(t *testing.T, layer []byte) {
		got := 0
		v := &noting{name: "v"}
		v.begin = func(e *Entry) (bool, error) {
			if strings.HasPrefix(e.Path, "/") || strings.HasPrefix(e.Path, "..") || strings.Count(e.Path, "/") >= limits.MaxDepth {
				t.Errorf("path %q", e.Path)
			}
			return true, nil
		}
		v.data = func(p []byte) error { got += len(p); return nil }
		a, err := walked(t, layer, limits, v)
		if got > 9<<20 || a.Entries > limits.MaxEntries+1 {
			t.Errorf("%d bytes, %d entries", got, a.Entries)
		}
		if err == nil && a.Size != int64(len(layer)) {
			t.Errorf("read %d of %d bytes", a.Size, len(layer))
		}
		if _, own := errors.AsType[*layerFault](err); err != nil && !own {
			t.Errorf("not the layer's fault: %v", err)
		}
	})
}
