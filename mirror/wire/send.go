package wire

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"dray/upstream/oci"
)

// Content is a body with an identity.
type Content struct {
	// ETag is the entity tag, in quotes.
	ETag      string
	MediaType string
	// Size in bytes, -1 when the origin did not tell.
	Size int64
	// Body is an *os.File where the kernel may send it, and Arriving where it is still on its way
	// here.
	Body io.ReadSeeker
	// Small says that a client has no use for ranges, and is not told of them.
	Small bool
}

// Arriving is a body that is still on its way here. The header of its answer does not wait for it,
// and the kernel sends of it what has come.
type Arriving interface {
	io.ReadSeeker
	// Stretch waits for bytes, and returns a file that stands at them and how many of them, at most
	// n, can be taken from it. They are then read. The file is nil where Read has to go on. An error
	// is one of Read.
	Stretch(n int64) (file *os.File, bytes int64, err error)
}

// Send answers GET and HEAD for content: whole, a range of it, or "not modified". What fails before
// the answer has begun is [oci.ErrRangeInvalid] or an error of the body.
func (w *Response) Send(c Content) error {
	h := w.Header()
	h.Set("Etag", c.ETag)
	if matches(w.r.Header.Get("If-None-Match"), c.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if _, arriving := c.Body.(Arriving); arriving && c.Size == 0 {
		// Not even a last byte is there to be withheld until the digest is known to match.
		if _, err := c.Body.Read(make([]byte, 1)); err != io.EOF {
			return err
		}
	}
	part, status := oci.Range{Length: c.Size}, http.StatusOK
	if c.Size >= 0 {
		if !c.Small {
			h.Set("Accept-Ranges", "bytes")
		}
		// Ranges are for GET alone (RFC 9110, 14.2).
		if ir := w.r.Header.Get("If-Range"); w.r.Method == http.MethodGet && (ir == "" || ir == c.ETag) {
			r, ok, err := oci.ParseRange(w.r.Header.Get("Range"), c.Size)
			if err != nil {
				h.Set("Content-Range", fmt.Sprintf("bytes */%d", c.Size))
				return err
			}
			if ok {
				part, status = r, http.StatusPartialContent
			}
		}
	}
	return w.sendPart(c, status, part)
}

// sendPart sends the header of a status, and the part of the body.
func (w *Response) sendPart(c Content, status int, part oci.Range) error {
	h := w.Header()
	h.Set("Content-Type", c.MediaType)
	if c.Size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(part.Length, 10))
	}
	if status == http.StatusPartialContent {
		h.Set("Content-Range", part.ContentRange(c.Size))
	}
	if w.r.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	if _, err := c.Body.Seek(part.Start, io.SeekStart); err != nil {
		return err
	}
	w.WriteHeader(status)
	if _, arriving := c.Body.(Arriving); arriving {
		_ = http.NewResponseController(w).Flush() // what fails here fails below
	}
	n, err := w.copyBody(c.Body, part.Length)
	if err = short(n, part.Length, err); err != nil {
		w.Break()
	}
	return err
}

// buffers of the size that performs best for bodies that the kernel cannot send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// byKernel reports whether the kernel may send a file. It cannot encrypt it, and some
// hosts do better without it.
func (w *Response) byKernel() bool { return w.r.TLS == nil && !w.options.CopyFiles }

// copyBody sends length bytes of the body, or all of it when that is -1. A file goes
// to the kernel, where that may send it, and of a file that grows what is there.
func (w *Response) copyBody(body io.Reader, length int64) (int64, error) {
	p := w.pacedWriter()
	if length >= 0 && w.byKernel() {
		switch body := body.(type) {
		case *os.File:
			return p.sendFile(body, length)
		case Arriving:
			return p.sendArriving(body, length)
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if length >= 0 {
		body = io.LimitReader(body, length)
	}
	return io.CopyBuffer(p, body, *buf)
}

// SendWhole sends a body that is at hand as a whole.
func (w *Response) SendWhole(body []byte) error {
	n, err := w.pacedWriter().Write(body)
	if err = short(int64(n), int64(len(body)), err); err != nil {
		w.Break()
	}
	return err
}

// short is the error of a body of which n bytes were sent of those wanted, -1 for all there are.
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
