package mirror

import (
	"bytes"

	"dray/mirror/wire"

	"github.com/opencontainers/go-digest"
)

// immutable is what a cache may think of an answer by digest.
const immutable = "max-age=31536000, immutable"

func etag(d digest.Digest) string { return `"` + d.String() + `"` }

func (x *exchange) sendManifest(a *answer) error {
	return x.send(a.digest, wire.Content{MediaType: a.mediaType, Size: int64(len(a.raw)), Body: bytes.NewReader(a.raw), Small: true})
}

// send answers GET and HEAD for content. What is sent never changes under its digest, so the
// digest is the entity tag.
func (x *exchange) send(d digest.Digest, c wire.Content) error {
	x.digest, x.size = d, c.Size
	c.ETag = etag(d)
	h := x.w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("X-Cache", x.source)
	if x.q.Ref.ByDigest() {
		h.Set("Cache-Control", immutable)
	}
	err := x.w.Send(c)
	if err != nil && !x.w.Started() {
		return brokenOrigin(x.up, err)
	}
	return err
}
