package cache

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Blob names bytes.
type Blob struct {
	Digest digest.Digest
	Size   int64 // length in bytes; below zero: not known
	// Via names the place that the caller's origin asks. Callers share one fetch
	// whatever they name, but the refusal of one place says nothing about another:
	// who named another one asks there.
	Via string
	// Split says how a large blob is fetched in several parts at once; nil: never.
	Split *Split
	// Ahead says that the caller does not read, and fetches for those who come. It counts as no
	// opening, and who joins its fetch first has [SourceOrigin], as if they had begun it.
	Ahead bool
}

// Stream is the answer of an origin.
type Stream struct {
	Body io.ReadCloser // from Skip bytes before the byte asked for to the end
	Size int64         // length of the whole blob; below zero: not known
	// Whole says that the origin sends all although it was asked for a part.
	Whole bool
	// Skip is how many bytes Body gives before the one asked for. They are read and dropped.
	Skip int64
}

// Origin fetches a blob from byte from on. One that cannot start there returns an
// error. It returns soon after ctx ends; Body is then closed, maybe during a Read. It
// may be called again, later and concurrently.
type Origin func(ctx context.Context, from int64) (Stream, error)
