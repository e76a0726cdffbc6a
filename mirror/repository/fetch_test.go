package repository

import (
	"bytes"
	"context"
	"io"
	"testing"

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

// What is held here goes to the tier once it is visible to the repository. Before, it may be part
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
