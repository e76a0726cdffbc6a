package mirror

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// content is a body with an identity.
type content struct {
	digest    digest.Digest
	mediaType string
	// size in bytes, -1 when the origin did not tell.
	size int64
	body io.ReadSeeker
	// file is the body as a file, where it is one: the kernel then sends it.
	file *os.File
	// small says that a client has no use for ranges, and is not told of them.
	small bool
	// arriving says that the body is still on its way here. The header then does not
	// wait for it.
	arriving bool
}

// immutable is what a cache may think of an answer by digest.
const immutable = "max-age=31536000, immutable"

func etag(d digest.Digest) string { return `"` + d.String() + `"` }

func (x *exchange) sendManifest(a *answer) error {
	return x.send(content{digest: a.digest, mediaType: a.mediaType, size: int64(len(a.raw)), body: bytes.NewReader(a.raw), small: true})
}

// send answers GET and HEAD for content: whole, a range of it, or "not modified".
// What is sent never changes under its digest, so the digest is the entity tag.
func (x *exchange) send(c content) error {
	x.digest, x.size = c.digest, c.size
	etag := etag(c.digest)
	h := x.w.Header()
	h.Set("Docker-Content-Digest", c.digest.String())
	h.Set("Etag", etag)
	h.Set("X-Cache", x.source)
	if x.q.Ref.ByDigest() {
		h.Set("Cache-Control", immutable)
	}
	if matches(x.r.Header.Get("If-None-Match"), etag) {
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if c.arriving && c.size == 0 {
		// Not even a last byte is there to be withheld until the digest is known to match.
		if _, err := c.body.Read(make([]byte, 1)); err != io.EOF {
			return brokenOrigin(x.up, err)
		}
	}
	part, partial := oci.Range{Length: c.size}, false
	if c.size >= 0 {
		if !c.small {
			h.Set("Accept-Ranges", "bytes")
		}
		// Ranges are for GET alone (RFC 9110, 14.2).
		if ir := x.r.Header.Get("If-Range"); x.r.Method == http.MethodGet && (ir == "" || ir == etag) {
			r, ok, err := oci.ParseRange(x.r.Header.Get("Range"), c.size)
			if err != nil {
				h.Set("Content-Range", fmt.Sprintf("bytes */%d", c.size))
				return err
			}
			if ok {
				part, partial = r, true
			}
		}
	}
	return x.sendPart(c, part, partial)
}

func (x *exchange) sendPart(c content, part oci.Range, partial bool) error {
	h := x.w.Header()
	h.Set("Content-Type", c.mediaType)
	if c.size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(part.Length, 10))
	}
	status := http.StatusOK
	if partial {
		h.Set("Content-Range", part.ContentRange(c.size))
		status = http.StatusPartialContent
	}
	if x.r.Method == http.MethodHead {
		x.w.WriteHeader(status)
		return nil
	}
	body := c.body
	if c.file != nil {
		body = c.file
	}
	if _, err := body.Seek(part.Start, io.SeekStart); err != nil {
		return err
	}
	x.w.WriteHeader(status)
	if c.arriving {
		_ = http.NewResponseController(x.w).Flush() // what fails here fails below
	}
	err := x.copyBody(body, c.file != nil, part.Length)
	if err != nil {
		x.w.broken = true
	}
	return err
}

// buffers of the size that performs best for bodies that the kernel cannot send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// byKernel reports whether the kernel may send a file. It cannot encrypt it, and some
// hosts do better without it.
func (x *exchange) byKernel() bool { return x.r.TLS == nil && !x.listener.CopyFiles }

// copyBody sends length bytes of the body, or all of it when that is -1. A file goes
// to the kernel, where that may send it, and of a file that grows what is there.
func (x *exchange) copyBody(body io.Reader, file bool, length int64) error {
	w := x.pacedWriter()
	if file && length >= 0 && x.byKernel() {
		n, err := w.sendFile(body, length)
		return short(n, length, err)
	}
	if arriving, ok := body.(stretcher); ok && length >= 0 && x.byKernel() {
		n, err := w.sendArriving(arriving, length)
		return short(n, length, err)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if length >= 0 {
		body = io.LimitReader(body, length)
	}
	n, err := io.CopyBuffer(w, body, *buf)
	return short(n, length, err)
}

func short(n, want int64, err error) error {
	if err == nil && want >= 0 && n < want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send body, %d of %d bytes: %w", n, want, err)
	}
	return nil
}

// matches reads If-None-Match (RFC 9110, 13.1.2), with the weak comparison.
func matches(header, etag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == etag || t == "*" {
			return true
		}
	}
	return false
}
