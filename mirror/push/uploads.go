package push

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// StartUpload mounts a blob, receives a whole blob in one request, or opens a session for further
// requests (spec, "Pushing blobs" and "Mounting a blob from another repository").
func (p *Pusher) StartUpload(x *request.Request) error {
	if err := p.checkName(x); err != nil {
		return err
	}
	if x.Q.Mount != "" {
		if mounted, err := p.mount(x); mounted || err != nil {
			return err
		}
	}
	s, err := p.openSession(x)
	if err != nil {
		return err
	}
	if x.Q.Ref.Digest == "" {
		return progress(x, s, http.StatusAccepted)
	}
	if err := s.acquire(x.R.Context()); err != nil {
		p.sessions.discard(s, err)
		return err
	}
	defer s.release()
	err = p.finishUpload(x, s)
	if err != nil { // the client does not know the session's id, so it cannot continue
		p.sessions.drop(s, err)
	}
	return err
}

// mount answers 201 if the client need not send the blob, or if the upstream mounts it into the
// repository. It returns false and no error if the client has to upload the blob. If the client
// names no source at this upstream, or a mount from its source fails, mount looks for a source that
// dray knows. It tries this source only if the client may pull from it. (For a source that the
// client names, dray has checked this before StartUpload.) Without this condition, a client could
// get any blob whose digest it knows.
func (p *Pusher) mount(x *request.Request) (bool, error) {
	ctx, r, d := x.R.Context(), x.Repo, x.Q.Mount
	at, err := r.LocateBlob(ctx, d, x.HeadNeed())
	if err != nil {
		return false, err
	}
	if at.Place != repository.Nowhere {
		return true, x.Created(d)
	}
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	var tried repository.Repo
	if x.Q.From != "" {
		from, _, err := x.MountSource()
		if err != nil {
			return false, err
		}
		if from.Up == r.Up {
			if tried = from; p.mountNow(ctx, r, from, d) {
				return true, x.Created(d)
			}
		}
	}
	from, ok := p.sender.mountSource(ctx, r, d)
	if !ok || from == tried || !x.MayPull(from) || !p.mountNow(ctx, r, from, d) {
		return false, nil // if the upstream cannot be reached, the upload that follows reports it
	}
	return true, x.Created(d)
}

// mountNow calls mountFrom while a client waits. If dray acknowledges pushes to the upstream
// locally, mountNow does not wait long for a registry that gives no answer.
func (p *Pusher) mountNow(ctx context.Context, r, from repository.Repo, d digest.Digest) bool {
	mount := func(ctx context.Context) (bool, error) {
		return p.sender.mountFrom(ctx, upstream.Call{Existing: p.o.Checks.For(r) != nil}, r, from, d)
	}
	var mounted bool // the log has the errors
	if r.Up.AcknowledgeLocally {
		mounted, _ = pull.AskQuickly(ctx, p.o.Manifests, r, mount, pull.Probe(func(ctx context.Context) (int64, error) {
			return r.Ask(ctx, upstream.Call{}, d)
		}))
	} else {
		mounted, _ = mount(ctx)
	}
	return mounted
}

func (p *Pusher) openSession(x *request.Request) (*session, error) {
	r := receipt{Upstream: x.Repo.Up.Name, Repository: x.Repo.Name, User: x.Caller.Name, Owner: x.Owner()}
	note, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	err = p.sessions.withRoom(r.Owner, func() error { return p.o.Quotas.begin(r.Owner) })
	if err != nil {
		return nil, err
	}
	id := rand.Text()
	blob, err := p.o.Cache.ReceiveResumable(x.R.Context(), id, note)
	if err != nil {
		p.o.Quotas.end(r.Owner)
		return nil, noRoom(err)
	}
	p.o.Repositories.Opened(x.R.Context(), id, p.o.UploadExpiry)
	return p.sessions.add(id, x.Repo, r, blob, time.Now()), nil
}

// PatchUpload appends a chunk to an upload.
func (p *Pusher) PatchUpload(x *request.Request) error {
	s, err := p.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	if err := p.receive(x, s, ""); err != nil {
		return err
	}
	return progress(x, s, http.StatusAccepted)
}

// UploadStatus answers with the number of bytes received.
func (p *Pusher) UploadStatus(x *request.Request) error {
	s, err := p.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	return progress(x, s, http.StatusNoContent)
}

// CancelUpload drops an upload.
func (p *Pusher) CancelUpload(x *request.Request) error {
	s, err := p.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	p.sessions.drop(s, errCancelled)
	x.W.WriteHeader(http.StatusNoContent)
	return nil
}

// CloseUpload receives the rest of an upload and stages the blob.
func (p *Pusher) CloseUpload(x *request.Request) error {
	if x.Q.Ref.Digest == "" {
		return oci.ErrDigestInvalid.With("the digest parameter is missing")
	}
	s, err := p.session(x)
	if err != nil {
		return err
	}
	defer s.release()
	return p.finishUpload(x, s)
}

func (p *Pusher) session(x *request.Request) (*session, error) {
	ctx, id := x.R.Context(), x.Q.Upload
	s, err := p.sessions.take(ctx, id, x.Repo, x.Caller.Name)
	if errors.Is(err, oci.ErrBlobUploadUnknown) && p.o.Repositories.OpenElsewhere(ctx, id) {
		// The status is a 5xx, after which clients repeat the request or begin the upload again.
		err = oci.ErrUnavailable.With("the upload %q began at another mirror; begin it again, and without a fleet, let all requests of a client reach the same mirror", id)
	}
	return s, err
}

// finishUpload appends the body to the upload, verifies the whole blob and stages it for the
// manifest that follows.
func (p *Pusher) finishUpload(x *request.Request, s *session) error {
	d := x.Q.Ref.Digest
	if err := p.receive(x, s, d); err != nil {
		return err
	}
	if s.forward == nil { // an empty blob, or a blob that a former process received
		p.sender.start(s, s.blob.Size(), d, x.Live.Forwarded())
	}
	// All bytes are here, so store the blob even if the client disconnects now. It finds the blob when
	// it comes back.
	blob, err := s.blob.Commit(context.WithoutCancel(x.R.Context()), d)
	if err != nil {
		p.sessions.drop(s, err)
		if errors.Is(err, cache.ErrCorrupt) {
			return oci.ErrDigestInvalid.With("the uploaded content does not match the digest %s", d).Because(err)
		}
		return noRoom(err)
	}
	p.o.Repositories.Staged().Progress(s.repo, s.owner, time.Now())
	staged := &repository.Staged{Size: blob.Size, Owner: s.owner, Forward: s.forward, Blob: s.blob}
	p.o.Repositories.Staged().Set(s.repo.Key(d), staged)
	s.forward.identify(d)
	s.repo.Announce(x.R.Context(), d, staged)
	s.ended = true
	p.sessions.remove(s)
	return x.Created(d)
}

// receive appends the body of the request to the upload. When the first body of an upload comes,
// receive starts the forward of the blob. If a body breaks off, the bytes received are kept, and
// the client may continue after them.
func (p *Pusher) receive(x *request.Request, s *session, announced digest.Digest) error {
	if err := checkChunk(x, s); err != nil {
		return err
	}
	if x.R.ContentLength == 0 {
		return nil
	}
	fits := func() error { return p.o.Quotas.fits(s.owner, s.blob.Size(), max(0, x.R.ContentLength)) }
	if err := p.sessions.withRoom(s.owner, fits); err != nil {
		return err
	}
	if s.forward == nil {
		size := int64(-1)
		if announced != "" && s.blob.Size() == 0 {
			size = x.R.ContentLength // -1 for a chunked body
		}
		p.sender.start(s, size, announced, x.Live.Forwarded())
	}
	lost, err := x.W.Receive(metered{s, p.sessions})
	s.broken = lost != nil
	switch {
	case errors.Is(err, oci.ErrTooManyRequests):
		return err // keep the bytes: the client may continue when its other uploads have ended
	case errors.Is(err, oci.ErrSizeInvalid):
		p.sessions.drop(s, err)
		return err
	case lost != nil:
		return oci.ErrBlobUploadInvalid.With("the body ended after %d bytes of the upload", s.blob.Size()).Because(lost)
	case err != nil:
		p.sessions.drop(s, err)
		return noRoom(err)
	}
	return nil
}

// metered writes to a session, and charges the written bytes to the quota of the session's owner.
type metered struct {
	s    *session
	open *sessions
}

func (w metered) Write(p []byte) (int, error) {
	quotas, owner := w.open.quotas, w.s.owner
	charge := func() error { return quotas.charge(owner, w.s.blob.Size(), int64(len(p))) }
	if err := w.open.withRoom(owner, charge); err != nil {
		return 0, err
	}
	n, err := w.s.blob.Write(p)
	quotas.Refund(owner, int64(len(p)-n))
	return n, err
}

// checkChunk checks the header Content-Range, if there is one: its range must begin where the
// received bytes end, and must be as long as the body.
func checkChunk(x *request.Request, s *session) error {
	header := x.R.Header.Get("Content-Range")
	if header == "" {
		return nil
	}
	c, err := oci.ParseContentRange(header)
	if err != nil {
		return err
	}
	if c.Start != s.blob.Size() {
		sessionHeader(x, s)
		return oci.ErrRangeInvalid.With("the chunk begins at byte %d, but the mirror has %d bytes", c.Start, s.blob.Size())
	}
	if x.R.ContentLength >= 0 && c.Length != x.R.ContentLength {
		return oci.ErrSizeInvalid.With("Content-Range is for %d bytes, but Content-Length is %d", c.Length, x.R.ContentLength)
	}
	return nil
}

// sessionHeader sets the headers that describe an upload (spec, "Pushing a blob in chunks").
func sessionHeader(x *request.Request, s *session) {
	h := x.W.Header()
	h.Set("Location", x.Location(oci.Request{Kind: oci.KindUpload, Upload: s.id}))
	h.Set("Docker-Upload-UUID", s.id)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, s.blob.Size()-1)))
}

func progress(x *request.Request, s *session, status int) error {
	sessionHeader(x, s)
	if status != http.StatusNoContent {
		x.W.Header().Set("Content-Length", "0")
	}
	x.W.WriteHeader(status)
	return nil
}

// noRoom returns the answer to an upload that cannot be stored: 413 if the blob is larger than the
// cache. In other cases, such as a full disk, the answer is 503, and the client may try again.
func noRoom(err error) error {
	if errors.Is(err, cache.ErrTooLarge) {
		return oci.ErrSizeInvalid.With("the blob is larger than the cache of this mirror").WithStatus(http.StatusRequestEntityTooLarge).Because(err)
	}
	if room, ok := errors.AsType[*cache.RoomError](err); ok {
		return oci.ErrUnavailable.With("the mirror cannot store the upload: %v; try again later", room).Because(err)
	}
	return oci.ErrUnavailable.With("the mirror cannot store the upload at the moment; try again later").Because(err)
}
