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

// Content is a body with its entity tag and media type.
type Content struct {
	// ETag is the entity tag, in quotes.
	ETag      string
	MediaType string
	// Size is in bytes; -1 if unknown.
	Size int64
	// Body implements Stretches if the kernel may send parts of it.
	Body io.ReadSeeker
	// Arriving says that the body is still being fetched. The header is then sent before the body has
	// arrived.
	Arriving bool
	// Small says that ranges of the content are of no use, so the answer has no Accept-Ranges. A
	// client that asks for a range gets it.
	Small bool
}

// Stretches is a body whose bytes are written to a file as they arrive. The kernel can send the
// bytes that are in the file.
type Stretches interface {
	io.ReadSeeker
	// Until tells the body that the caller will ask only for bytes at offsets less than end.
	Until(end int64)
	// Stretch waits for bytes. It returns a file that is positioned at these bytes, and how many of
	// them the caller may send from the file, at most n. The file is nil if the caller has to use Read
	// instead. Stretch returns the errors that Read would return.
	Stretch(n int64) (file *os.File, bytes int64, err error)
	// Passed tells the body how many bytes of a stretch were sent, and the error that ended the
	// sending. The body continues after these bytes. If the error means that the file cannot be read,
	// Passed returns nil, and Read gets the bytes elsewhere. Passed returns any other error. After a
	// whole stretch, the caller uses err and not the result of Passed: all bytes came from the file,
	// so the file is not the cause of err.
	Passed(sent int64, err error) error
}

// inBytes is the value of Accept-Ranges that all answers share.
var inBytes = []string{"bytes"}

// Send answers GET and HEAD for content. The answer is the whole content, a range of it, or "not
// modified". It may return [oci.ErrRangeInvalid] or an error of the body before the answer has
// begun ([Response.Started]). If sending the body fails, it marks the answer as broken.
func (w *Response) Send(c Content) error {
	h := w.Header()
	h["Etag"] = []string{c.ETag}
	if matches(w.r.Header.Get("If-None-Match"), c.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if c.Arriving && c.Size == 0 {
		// The last byte of content is withheld until the digest is verified. Empty content has no last
		// byte, so wait here until the digest is verified.
		if _, err := c.Body.Read(make([]byte, 1)); err != io.EOF {
			return err
		}
	}
	part, status := oci.Range{Length: c.Size}, http.StatusOK
	if c.Size >= 0 {
		if !c.Small {
			h["Accept-Ranges"] = inBytes
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

// sendPart sends the header with a status, and the part of the body.
func (w *Response) sendPart(c Content, status int, part oci.Range) error {
	h := w.Header()
	values := [...]string{c.MediaType, strconv.FormatInt(part.Length, 10), ""} // one allocation for all header values
	h["Content-Type"] = values[:1:1]
	if c.Size >= 0 {
		h["Content-Length"] = values[1:2:2]
	}
	if status == http.StatusPartialContent {
		values[2] = part.ContentRange(c.Size)
		h["Content-Range"] = values[2:]
	}
	if w.r.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	if _, err := c.Body.Seek(part.Start, io.SeekStart); err != nil {
		return err
	}
	if body, ok := c.Body.(Stretches); ok && part.Length >= 0 {
		body.Until(part.Start + part.Length)
	}
	w.WriteHeader(status)
	if c.Arriving {
		_ = http.NewResponseController(w).Flush() // an error would occur again below
	}
	n, err := w.copyBody(c.Body, part.Length)
	if err = short(n, part.Length, err); err != nil {
		w.Break()
	}
	return err
}

// Relay sends an answer that another process has given to the same request. The caller has set the
// header. length is the length of the body in bytes, or -1 if it is not known.
func (w *Response) Relay(status int, body io.Reader, length int64) error {
	w.WriteHeader(status)
	if w.r.Method == http.MethodHead || length == 0 {
		return nil
	}
	n, err := w.copyBody(body, length)
	if err = short(n, length, err); err != nil {
		w.Break()
	}
	return err
}

// buffers have the size that performs best for bodies that the kernel cannot send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// byKernel reports whether the kernel may send a file. With TLS, it may not, because it cannot
// encrypt. CopyFiles forbids it, too, for hosts on which copying is faster.
func (w *Response) byKernel() bool { return w.r.TLS == nil && !w.options.CopyFiles }

// copyBody sends length bytes of the body, or all of it if length is -1. If the length is known and
// byKernel allows it, the kernel sends the parts that are in a file.
func (w *Response) copyBody(body io.Reader, length int64) (int64, error) {
	p := w.pacedWriter()
	if length >= 0 && w.byKernel() {
		if body, ok := body.(Stretches); ok {
			return p.sendStretches(body, length)
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if length >= 0 {
		body = io.LimitReader(body, length)
	}
	return io.CopyBuffer(p, body, *buf)
}

// SendWhole sends a body that is in memory.
func (w *Response) SendWhole(body []byte) error {
	n, err := w.pacedWriter().Write(body)
	if err = short(int64(n), int64(len(body)), err); err != nil {
		w.Break()
	}
	return err
}

// short returns an error if err is not nil, or if n, the number of bytes sent, is less than
// expected. If expected is -1, every n is enough.
func short(n, expected int64, err error) error {
	if err == nil && expected >= 0 && n < expected {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send body, %d of %d bytes: %w", n, expected, err)
	}
	return nil
}

// matches reports whether If-None-Match has the entity tag, by weak comparison (RFC 9110, 13.1.2).
func matches(header, etag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == etag || t == "*" {
			return true
		}
	}
	return false
}
