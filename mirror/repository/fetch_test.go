package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"dray/cache"
)

// tier is a tier that has some bytes for every digest, and records what it is told.
type tier struct {
	bytes       []byte
	body        io.Reader // of the answers; nil means bytes
	asked       int
	kept, wrong int
}

func (t *tier) Open(_ context.Context, _ digest.Digest, from, _ int64) (cache.Stream, error) {
	t.asked++
	var body io.Reader = bytes.NewReader(t.bytes[from:])
	if t.body != nil {
		body = t.body
	}
	return cache.Stream{Body: io.NopCloser(body), Size: int64(len(t.bytes))}, nil
}

func (t *tier) Has(context.Context, digest.Digest) bool { return true }
func (t *tier) Keep(digest.Digest, int64)               { t.kept++ }
func (t *tier) Wrong(digest.Digest)                     { t.wrong++ }

// A blob that is held goes to the tier once it is visible to the repository. Before, it may be part
// of a push that the upstream has not accepted.
func TestTierGetsWhatIsVisible(t *testing.T) {
	f, to := newFixture(t), &tier{}
	f.Up.Tier = to
	u, err := f.store.o.Cache.Receive(t.Context())
	f.must(err)
	_, err = u.Write(f.raw)
	f.must(err)
	_, err = u.Commit(t.Context(), f.digest)
	f.must(err)
	f.must(u.Close())
	for i, prepare := range []func(){func() {}, f.link} {
		prepare()
		r, err := f.Fetch(f.digest, nil).Open(t.Context(), f.size())
		f.must(err)
		f.must(r.Close())
		if to.kept != i {
			t.Errorf("%d: kept %d times", i, to.kept)
		}
	}
}

// A tier with another size than the manifest states is not asked further. The verified size tells
// whether the object or the manifest is wrong.
func TestTierWithAnotherSize(t *testing.T) {
	for name, tc := range map[string]struct{ stated, inTier, wrong int }{
		"the manifest is wrong": {2000, 1000, 0},
		"the object is wrong":   {1000, 999, 1},
		"both are wrong":        {2000, 999, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, to, content := newFixture(t), &tier{bytes: make([]byte, tc.inTier)}, make([]byte, 1000)
			f.Up.Tier, f.digest = to, digest.FromBytes(content)
			f.link()
			f.source.blob = content
			r, err := f.Fetch(f.digest, nil).Open(t.Context(), int64(tc.stated))
			f.must(err)
			got, err := io.ReadAll(r)
			f.must(errors.Join(err, r.Close()))
			f.store.o.Cache.Close() // waits for the end of the fetch
			if !bytes.Equal(got, content) || to.wrong != tc.wrong || to.asked != 1 || to.kept != 1 {
				t.Errorf("%d bytes; the tier was called wrong %d times, asked %d times, and kept %d times", len(got), to.wrong, to.asked, to.kept)
			}
		})
	}
}

// A manifest that breaks off in the tier is left to the upstream: the tier is asked once.
func TestManifestBreaksOffInTheTier(t *testing.T) {
	f := newFixture(t)
	to := &tier{bytes: f.raw, body: io.MultiReader(bytes.NewReader(f.raw[:10]), iotest.ErrReader(io.ErrUnexpectedEOF))}
	f.Up.Tier = to
	if _, err := f.store.Bytes(t.Context(), f.Up, f.digest); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	to.body = nil
	if raw, err := f.store.Bytes(t.Context(), f.Up, f.digest); err != nil || !bytes.Equal(raw, f.raw) {
		t.Errorf("error %v", err)
	}
	if to.asked != 2 || to.wrong > 0 {
		t.Errorf("the tier was asked %d times, and called wrong %d times", to.asked, to.wrong)
	}
}
