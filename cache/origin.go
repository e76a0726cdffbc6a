package cache

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Blob names the bytes that a caller wants.
type Blob struct {
	Digest digest.Digest
	Size   int64 // length in bytes, which no origin may exceed; negative if unknown
	// Via names the place that the caller's origin asks. All callers share one fetch, even if their
	// Via differs. If the fetch fails at the first call of its origin, only callers with the Via of
	// the fetch get this error, because another place may have the blob. The other callers then ask
	// their own origins.
	Via string
	// Split says how a large blob is fetched in several parts at once; nil means in one part.
	Split *Split
	// Ahead says that the caller does not read, but fetches for later readers. The call is not counted
	// as an open. The first reader that joins the fetch has [SourceOrigin], as if that reader had
	// started it.
	Ahead bool
	// Observer is told how the fetch ended, if this caller started it. It may be nil.
	Observer Observer
}

// Observer is told of the end of a fetch.
type Observer interface {
	// Ended is called with nil if the blob is on disk and verified. By the time of this call, readers
	// may already have its last byte. Otherwise Ended is called with the reason of the failure, before
	// readers get the error. A true result says that the reason concerns only one of the places that
	// the origin asks. Readers then go on with their own origins instead of failing. A fetch that does
	// not store its bytes calls Ended only if they have the wrong digest. Ended must return at once.
	Ended(reason error) (again bool)
	// Joined is called when another caller, with another observer, joins the fetch. Joined must return
	// at once.
	Joined(other Observer)
}

func (b Blob) ended(reason error) (again bool) {
	return b.Observer != nil && b.Observer.Ended(reason)
}

// Stream is the answer of an origin.
type Stream struct {
	Body io.ReadCloser // gives the blob to its end, beginning Skip bytes before the requested byte
	Size int64         // length of the whole blob; negative if unknown
	// Whole says that the origin sends the whole blob although it was asked for a part.
	Whole bool
	// Follows says that the bytes come from a fetch of another member of the fleet, and that this
	// fetch goes on to the end of the blob.
	Follows bool
	// End is the offset at which Body ends. It may be 0 if Body reaches the end of the blob, or of the
	// requested part (see [Split.Part]). At End, the fetch asks the origin again for the bytes that
	// it still needs. This does not count as a failure.
	End int64
	// Skip is how many bytes Body gives before the requested byte. The fetch reads and discards these
	// bytes.
	Skip int64
}

// Origin fetches a blob, beginning at the offset off. If it cannot begin there, it begins earlier
// and sets [Stream.Skip], or it returns an error. It returns soon after ctx ends. If ctx ends after
// the function has returned, the cache closes Body, even during a Read. The function may be called
// several times, also concurrently.
type Origin func(ctx context.Context, off int64) (Stream, error)
