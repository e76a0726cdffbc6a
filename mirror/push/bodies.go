package push

import (
	"io"
	"net/http"
	"sync"
	"time"

	"dray/mirror/request"
	"dray/upstream/oci"
)

const (
	// smallManifest is the size in bytes up to which a manifest is not counted. Nearly all manifests
	// are smaller, and each connection takes about 32 KiB of memory anyway.
	smallManifest = 32 << 10
	// maxBodies and maxBodiesPerOwner bound the bytes of larger manifests in memory, for all
	// clients together and for each client.
	maxBodies         = 48 << 20
	maxBodiesPerOwner = 16 << 20
)

// bodies counts the memory that manifests above smallManifest take until their pushes are answered.
type bodies struct {
	mu      sync.Mutex // guards the fields below
	all     int
	byOwner map[string]int
}

func newBodies() *bodies { return &bodies{byOwner: map[string]int{}} }

// take counts n bytes as taken until the caller calls release. If a bound does not allow them, take
// counts none of them and ok is false.
func (b *bodies) take(owner string, n int) (release func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all+n > maxBodies || b.byOwner[owner]+n > maxBodiesPerOwner {
		return nil, false
	}
	b.all += n
	b.byOwner[owner] += n
	return sync.OnceFunc(func() { b.release(owner, n) }), true
}

func (b *bodies) release(owner string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.byOwner[owner] -= n; b.byOwner[owner] == 0 {
		delete(b.byOwner, owner)
	}
}

// read returns the body of a request that pushes a manifest. The caller calls release when it no
// longer needs the bytes. release is never nil.
func (b *bodies) read(x *request.Request) (raw []byte, release func(), err error) {
	declared, body := x.R.ContentLength, x.W.Body()
	if declared > oci.MaxManifestBytes {
		return nil, func() {}, errManifestTooLarge()
	}
	raw, err = io.ReadAll(io.LimitReader(body, smallManifest+1))
	if err != nil {
		return nil, func() {}, cutManifest(len(raw), err)
	}
	if len(raw) <= smallManifest {
		return raw, func() {}, nil
	}
	most := oci.MaxManifestBytes + 1 // if the length is unknown
	if declared >= 0 {
		most = int(declared)
	}
	release, ok := b.take(x.Owner(), most)
	if !ok {
		// Read the whole body before answering, because most clients do not read the answer before they
		// have sent everything.
		if _, err := io.Copy(io.Discard, io.LimitReader(body, oci.MaxManifestBytes)); err != nil {
			return nil, func() {}, cutManifest(len(raw), err)
		}
		return nil, func() {}, errTooManyManifests()
	}
	whole := make([]byte, most)
	n := copy(whole, raw)
	for err == nil && n < most {
		var more int
		more, err = body.Read(whole[n:])
		n += more
	}
	switch {
	case err != nil && err != io.EOF:
		err = cutManifest(n, err)
	case n > oci.MaxManifestBytes:
		err = errManifestTooLarge()
	default:
		return whole[:n:n], release, nil
	}
	release()
	return nil, func() {}, err
}

func cutManifest(n int, err error) error {
	return oci.ErrManifestInvalid.With("the manifest ended after %d bytes", n).Because(err)
}

func errManifestTooLarge() error {
	return oci.ErrSizeInvalid.With("the manifest is larger than the limit of %d bytes", oci.MaxManifestBytes).WithStatus(http.StatusRequestEntityTooLarge)
}

func errTooManyManifests() error {
	e := oci.ErrTooManyRequests.With("too many large manifests are being pushed at the moment; try again later")
	e.RetryAfter = time.Second
	return e
}
