package mirror

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"dray/cache"
	"dray/mirror/identity"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// owner is who an upload counts for.
func (x *exchange) owner() string {
	if x.caller.Name != "" {
		return "user " + x.caller.Name
	}
	return "address " + identity.ClientAddr(x.r).String()
}

// startUpload opens a session, mounts a blob, or takes a whole blob in one request
// (spec, "Pushing blobs" and "Mounting a blob from another repository").
func (m *Mirror) startUpload(x *exchange) error {
	if err := m.checkName(x); err != nil {
		return err
	}
	if x.q.Mount != "" {
		if mounted, err := m.mount(x); mounted || err != nil {
			return err
		}
	}
	s, err := m.openSession(x)
	if err != nil {
		return err
	}
	if x.q.Ref.Digest == "" {
		return x.progress(s, http.StatusAccepted)
	}
	if err := s.acquire(x.r.Context()); err != nil {
		m.uploads.discard(s, err)
		return err
	}
	defer s.release()
	err = m.finishUpload(x, s)
	if err != nil { // nobody knows the session's id: it cannot be continued
		m.uploads.drop(s, err)
	}
	return err
}

func (m *Mirror) openSession(x *exchange) (*session, error) {
	r := receipt{Upstream: x.up.Name, Repository: x.target.Repo, User: x.caller.Name, Owner: x.owner()}
	note, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if err := m.shares.begin(r.Owner); err != nil {
		return nil, err
	}
	id := rand.Text()
	blob, err := m.cache.ReceiveKept(x.r.Context(), id, note)
	if err != nil {
		m.shares.end(r.Owner)
		return nil, noRoom(err)
	}
	return m.uploads.add(id, x.up, r, blob, time.Now()), nil
}

func (m *Mirror) patchUpload(x *exchange) error {
	s, err := m.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	if err := m.receive(x, s, ""); err != nil {
		return err
	}
	return x.progress(s, http.StatusAccepted)
}

func (m *Mirror) uploadStatus(x *exchange) error {
	s, err := m.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	return x.progress(s, http.StatusNoContent)
}

func (m *Mirror) cancelUpload(x *exchange) error {
	s, err := m.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	m.uploads.drop(s, errCancelled)
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (m *Mirror) closeUpload(x *exchange) error {
	if x.q.Ref.Digest == "" {
		return oci.ErrDigestInvalid.With("the digest parameter is missing")
	}
	s, err := m.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	return m.finishUpload(x, s)
}

func (m *Mirror) session(x *exchange) (*session, error) {
	return m.uploads.take(x.r.Context(), x.q.Upload, x.up, x.target.Repo, x.caller.Name)
}

// finishUpload takes the rest of the body, verifies the whole and pins it for the
// manifest that will follow.
func (m *Mirror) finishUpload(x *exchange, s *session) error {
	d := x.q.Ref.Digest
	if err := m.receive(x, s, d); err != nil {
		return err
	}
	if s.forward == nil { // an empty blob, or one that a former process received
		m.startForward(s, s.blob.Size(), d)
	}
	// The bytes are here: a client that leaves now finds the blob when it comes back.
	blob, err := s.blob.Commit(context.WithoutCancel(x.r.Context()), d)
	if err != nil {
		m.uploads.drop(s, err)
		if errors.Is(err, cache.ErrCorrupt) {
			return oci.ErrDigestInvalid.With("the uploaded bytes do not have the digest %s", d).Because(err)
		}
		return noRoom(err)
	}
	m.pins.set(pinKey{s.up.Name, s.repo, d}, &pin{size: blob.Size, owner: s.owner, forward: s.forward, blob: s.blob})
	s.forward.identify(d)
	s.ended = true
	m.uploads.remove(s)
	return x.created(d)
}

// receive appends the request's body to the upload, and lets the bytes flow on to
// the upstream from the first one on. What arrived before a body broke off stays:
// the client may continue there.
func (m *Mirror) receive(x *exchange, s *session, announced digest.Digest) error {
	if err := x.checkChunk(s); err != nil {
		return err
	}
	if x.r.ContentLength == 0 {
		return nil
	}
	if err := m.shares.fits(s.owner, max(0, x.r.ContentLength)); err != nil {
		return err
	}
	if s.forward == nil {
		size := int64(-1)
		if announced != "" && s.blob.Size() == 0 {
			size = x.r.ContentLength // -1 for a chunked body
		}
		m.startForward(s, size, announced)
	}
	lost, err := x.w.Receive(metered{s, m.shares})
	switch {
	case errors.Is(err, oci.ErrTooManyRequests):
		return err // what is here stays: others of the client's uploads may end
	case lost != nil:
		return oci.ErrBlobUploadInvalid.With("the body broke off after %d bytes of the upload", s.blob.Size()).Because(lost)
	case err != nil:
		m.uploads.drop(s, err)
		return noRoom(err)
	}
	return nil
}

// metered charges what is written to a session to its client.
type metered struct {
	s      *session
	shares *shares
}

func (w metered) Write(p []byte) (int, error) {
	if err := w.shares.charge(w.s.owner, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := w.s.blob.Write(p)
	w.shares.refund(w.s.owner, int64(len(p)-n))
	return n, err
}

// checkChunk holds a chunk with a Content-Range to the end of what is there.
func (x *exchange) checkChunk(s *session) error {
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		return nil
	}
	c, err := oci.ParseContentRange(header)
	if err != nil {
		return err
	}
	if c.Start != s.blob.Size() {
		x.sessionHeader(s)
		return oci.ErrRangeInvalid.With("the chunk begins at byte %d, %d bytes are here", c.Start, s.blob.Size())
	}
	if x.r.ContentLength >= 0 && c.Length != x.r.ContentLength {
		return oci.ErrSizeInvalid.With("Content-Range names %d bytes, Content-Length %d", c.Length, x.r.ContentLength)
	}
	return nil
}

// sessionHeader describes an upload (spec, "Pushing a blob in chunks"). The location
// is a path: a scheme or host would have to be guessed behind a proxy.
func (x *exchange) sessionHeader(s *session) {
	h := x.w.Header()
	h.Set("Location", x.location(oci.Request{Kind: oci.KindUpload, Upload: s.id}))
	h.Set("Docker-Upload-UUID", s.id)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, s.blob.Size()-1)))
}

func (x *exchange) progress(s *session, status int) error {
	x.sessionHeader(s)
	if status != http.StatusNoContent {
		x.w.Header().Set("Content-Length", "0")
	}
	x.w.WriteHeader(status)
	return nil
}

// created answers that the repository has the blob.
func (x *exchange) created(d digest.Digest) error {
	return x.createdAt(oci.Request{Kind: oci.KindBlob, Ref: oci.Reference{Digest: d}}, d)
}

// location is the path of something in the request's repository, in the form that
// the client chose for the repository: ?ns= may be what selects the upstream.
func (x *exchange) location(q oci.Request) string {
	q.Prefix, q.Repo, q.Namespace, q.N = x.q.Prefix, x.q.Repo, x.q.Namespace, -1
	return q.URL()
}

func (x *exchange) createdAt(q oci.Request, d digest.Digest) error {
	h := x.w.Header()
	h.Set("Location", x.location(q))
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", strconv.Itoa(0))
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// noRoom is the answer to an upload that the disk has no place for. The registry is
// not at fault and the client may try again, so it is a 503.
func noRoom(err error) error {
	if errors.Is(err, cache.ErrTooLarge) {
		e := oci.ErrSizeInvalid.With("the blob is larger than this mirror can hold")
		e.Status = http.StatusRequestEntityTooLarge
		return e.Because(err)
	}
	return oci.ErrUnavailable.With("the mirror cannot store the upload now").Because(err)
}
