package fleet

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
)

// The type asked is a request of another member for a blob; see [blobPath].
type asked struct {
	digest           digest.Digest
	from, to         int64 // offsets; 0 in the field to means the end of the blob
	held, unfinished bool
}

// blobServer answers the requests of other members for blobs.
type blobServer struct {
	cache    *cache.Cache
	readers  *readers
	position func(d digest.Digest, whole bool, asked int64) position
	m        *metrics
	log      *slog.Logger
}

// ServeHTTP implements http.Handler.
func (b *blobServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	a := asked{digest: digest.Digest(strings.TrimPrefix(r.URL.Path, blobPath)), held: query.Get("held") == "1", unfinished: query.Get("unfinished") == "1"}
	var err1, err2 error
	a.from, err1 = strconv.ParseInt(query.Get("from"), 10, 64)
	if query.Has("to") {
		a.to, err2 = strconv.ParseInt(query.Get("to"), 10, 64)
	}
	switch {
	case a.digest.Validate() != nil || errors.Join(err1, err2) != nil || a.from < 0 || a.to != 0 && a.to <= a.from:
		http.Error(w, "not a request of a member", http.StatusBadRequest)
	case r.Method == http.MethodHead:
		b.serveProgress(w, a)
	case r.Method != http.MethodGet:
		http.Error(w, "not a request of a member", http.StatusMethodNotAllowed)
	case a.held:
		b.serveHeld(w, r, a)
	default:
		b.serveFollower(w, r, a)
	}
}

func (b *blobServer) serveProgress(w http.ResponseWriter, a asked) {
	parts, size, ok := b.cache.Extents(a.digest)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set(headerReady, strconv.FormatInt(ready(parts, a.from), 10))
	w.Header().Set(headerParts, formatParts(parts))
	w.Header().Set(headerSize, strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
}

// [ready] returns how many bytes can be read at an offset without waiting.
func ready(parts []cache.Extent, off int64) int64 {
	return max(holding{parts: parts}.end(off)-off, 0)
}

// serveHeld sends the requested bytes if this member has all of them. Otherwise it answers 404.
func (b *blobServer) serveHeld(w http.ResponseWriter, r *http.Request, a asked) {
	parts, size, _ := b.cache.Extents(a.digest)
	if a.to == 0 {
		a.to = size
	}
	if a.to <= a.from || ready(parts, a.from) < a.to-a.from {
		b.missing(w, a, errors.New("not all bytes are here"))
		return
	}
	b.serve(w, r, a)
}

// serveFollower sends the bytes to a member that follows this one. If another member should send
// them instead, serveFollower answers 503 with the addresses of other followers.
func (b *blobServer) serveFollower(w http.ResponseWriter, r *http.Request, a asked) {
	if _, whole := b.cache.Stat(a.digest); whole && a.unfinished {
		http.Error(w, "the blob is finished", http.StatusConflict)
		return
	}
	who := reader{address: r.Header.Get(headerAddress), zone: r.Header.Get(headerZone)}
	others, ok := b.readers.admit(a.digest, who, addresses(r.Header.Get(headerTried)))
	w.Header().Set(headerFollowers, strings.Join(others, ","))
	if !ok {
		b.m.refused.WithLabelValues(refusedFull).Inc()
		http.Error(w, "other members can send the blob", http.StatusServiceUnavailable)
		return
	}
	defer b.readers.dismiss(a.digest, who)
	b.serve(w, r, a)
}

func (b *blobServer) missing(w http.ResponseWriter, a asked, err error) {
	b.m.refused.WithLabelValues(refusedMissing).Inc()
	b.log.Debug("fleet: a blob is not here any more", "digest", a.digest, "from", a.from, "error", err)
	http.Error(w, "the blob is not here any more", http.StatusNotFound)
}

// serve sends the bytes as they arrive.
func (b *blobServer) serve(w http.ResponseWriter, r *http.Request, a asked) {
	content, err := b.cache.Follow(r.Context(), a.digest)
	if err == nil {
		defer content.Close()
		_, err = content.Seek(a.from, io.SeekStart)
	}
	if err != nil {
		b.missing(w, a, err)
		return
	}
	generation, _ := strconv.ParseInt(r.Header.Get(headerGeneration), 10, 64)
	size, at := content.Size(), b.position(a.digest, content.Held(), generation)
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set(headerSize, strconv.FormatInt(size, 10))
	h.Set(headerGeneration, strconv.FormatInt(at.generation, 10))
	h.Set(headerHop, strconv.Itoa(at.hop))
	end := size
	if a.to > 0 {
		end = a.to
		content.Until(a.to)
	}
	if size >= 0 {
		end = min(end, size)
	}
	body := io.Reader(content)
	if end >= 0 {
		h.Set("Content-Length", strconv.FormatInt(max(end-a.from, 0), 10))
		body = io.LimitReader(content, end-a.from)
	}
	if err := b.stream(w, body); err != nil {
		b.log.Debug("fleet: a stream to another member ended early", "digest", a.digest, "address", r.RemoteAddr, "error", err)
		panic(http.ErrAbortHandler) // so that the member sees that bytes are missing
	}
}

// stream sends the header at once, and the bytes as they arrive.
func (b *blobServer) stream(w http.ResponseWriter, content io.Reader) error {
	to := http.NewResponseController(w)
	if err := to.Flush(); err != nil {
		return err
	}
	buf := make([]byte, streamBuffer)
	for {
		n, err := content.Read(buf)
		if n > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(writePatience))
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := to.Flush(); err != nil {
				return err
			}
			b.m.sent.Add(float64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
