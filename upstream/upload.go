package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

const cancelTimeout = 5 * time.Second

// PutBlob implements Sink. It sends a POST, one PATCH with all bytes, and a PUT with the digest.
// All registries accept one PATCH. With several PATCHes, PutBlob would have to rely on the Range of
// the answers, which ECR may state wrongly. If PutBlob sent the bytes with the PUT, the PUT would
// complete the upload before PutBlob knows whether the bytes have the right digest.
func (c *Client) PutBlob(ctx context.Context, repo Repo, b Upload) error {
	if b.Size == 0 && c.o.Quirks.RefusesEmptyBlobs {
		return emptyBlob(c.o.Name)
	}
	ctx = auth.WithScope(ctx, auth.PushScope(repo.Name))
	u := &upload{c: c, Upload: b}
	return c.attempts(ctx, repo, "blob of "+repo.Name, func(repo Repo) error {
		u.repo = repo
		return u.try(ctx)
	})
}

func emptyBlob(registry string) error {
	return localError{oci.ErrSizeInvalid.With("the upstream registry %s does not accept empty layers", registry)}
}

// upload is the upload of one blob, with all its attempts.
type upload struct {
	Upload
	c    *Client
	repo Repo // the Repo of the current attempt
	// closing is the digest of the blob if the PUT of the last attempt failed without a clear
	// refusal. After such a failure, the registry may have the blob. In all other cases, closing is
	// empty.
	closing digest.Digest
}

func (u *upload) try(ctx context.Context) (err error) {
	if u.closing != "" {
		if _, err := u.c.StatBlob(ctx, u.repo, u.closing); err == nil {
			return nil
		}
		u.closing = ""
	}
	session, err := u.begin(ctx)
	if err != nil {
		return err
	}
	if u.Accepted != nil {
		u.Accepted()
	}
	defer func() {
		if err != nil {
			u.cancel(ctx, session)
		}
	}()
	rc, err := u.Open()
	if err != nil {
		return localError{fmt.Errorf("upload to %s: %w", u.repo.Name, err)}
	}
	body := &uploadBody{rc: rc}
	defer body.Close()
	next, err := u.patch(ctx, session, body)
	if err != nil {
		return err
	}
	session = next
	d, err := u.digest()
	if err != nil {
		return localError{fmt.Errorf("upload to %s: %w", u.repo.Name, err)}
	}
	return u.complete(ctx, session, d)
}

// begin opens a session and returns its URL.
func (u *upload) begin(ctx context.Context) (*url.URL, error) {
	req, err := u.c.request(ctx, oci.Request{Method: http.MethodPost, Kind: oci.KindUploads, Repo: u.repo.Name}, nil)
	if err != nil {
		return nil, err
	}
	resp, err := u.c.send(idempotent(req), u.repo, oci.KindUploads)
	if err != nil {
		return nil, u.c.o.startError(u.repo.Name, err)
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusCreated {
		return nil, u.c.writeError(resp, u.repo.Name)
	}
	return u.c.resolve(req.URL, cmp.Or(resp.Header.Get("Location"), "\x00"))
}

// patch sends all bytes and returns the new URL of the session. It ignores the Range of the answer,
// because ECR may state fewer bytes than it has received.
func (u *upload) patch(ctx context.Context, session *url.URL, body *uploadBody) (*url.URL, error) {
	req, err := u.c.requestTo(ctx, http.MethodPatch, session)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Body, req.ContentLength = body, u.Size
	if u.Size == 0 {
		_, _ = io.Copy(io.Discard, body) // there is nothing to read, but body has to record its end
		req.Body = http.NoBody
	}
	resp, err := u.c.send(req, u.repo, oci.KindUpload)
	if err == nil {
		defer drain(resp)
		if resp.StatusCode/100 != 2 {
			err = restartable(u.c.writeError(resp, u.repo.Name))
		} else if body.failure() == nil && !body.ended.Load() {
			err = restartError{u.c.corrupt("upload to %s: status %d before the last byte", u.repo.Name, resp.StatusCode)}
		}
	}
	if cause := body.failure(); cause != nil {
		return nil, localError{fmt.Errorf("upload to %s: %w", u.repo.Name, cause)}
	}
	if err != nil {
		return nil, err
	}
	if body.read.Load() == 0 && u.c.o.Quirks.RefusesEmptyBlobs {
		return nil, emptyBlob(u.c.o.Name)
	}
	if loc := resp.Header.Get("Location"); loc != "" {
		return u.c.resolve(req.URL, loc)
	}
	return session, nil
}

// complete closes the session with the digest d.
func (u *upload) complete(ctx context.Context, session *url.URL, d digest.Digest) error {
	closing := *session
	closing.RawQuery = strings.TrimPrefix(session.RawQuery+"&digest="+url.QueryEscape(d.String()), "&")
	req, err := u.c.requestTo(ctx, http.MethodPut, &closing)
	if err != nil {
		return err
	}
	resp, err := u.c.send(req, u.repo, oci.KindUpload)
	if err != nil {
		u.closing = d
		return err
	}
	defer drain(resp)
	if resp.StatusCode/100 == 2 {
		return nil
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		u.closing = d
	}
	return restartable(u.c.writeError(resp, u.repo.Name))
}

// digest waits for the digest of the bytes, and compares it with the announced digest.
func (u *upload) digest() (digest.Digest, error) {
	d, err := u.Digest()
	if err == nil && u.Announced != "" && d != u.Announced {
		err = oci.ErrDigestInvalid.With("the content has the digest %s instead of %s", d, u.Announced)
	}
	return d, err
}

// restartable marks refusals after which the upload has to start again in a new session. A refusal
// of the authorization is one of them: the request cannot be repeated, because its body can be sent
// only once.
func restartable(err error) error {
	if errors.Is(err, oci.ErrBlobUploadUnknown) || errors.Is(err, oci.ErrBlobUploadInvalid) ||
		errors.Is(err, oci.ErrRangeInvalid) || errors.Is(err, ErrCredentials) || errors.Is(err, errUnauthorized) {
		return restartError{err}
	}
	return err
}

// cancel ends an abandoned session at the registry, even when ctx has ended. It does nothing if the
// registry does not support that, or if the PUT of the session may have succeeded.
func (u *upload) cancel(ctx context.Context, session *url.URL) {
	if u.c.o.Quirks.NoUploadCancel || u.closing != "" {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	req, err := u.c.requestTo(ctx, http.MethodDelete, session)
	if err != nil {
		return
	}
	if resp, err := u.c.send(req, u.repo, oci.KindUpload); err == nil {
		drain(resp)
	}
}

// closedUnanswered reports whether the registry closed the connection without an answer.
func closedUnanswered(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// uploadBody is the body of one attempt. The transport may still read it after the round trip,
// so its fields are safe for concurrent use.
type uploadBody struct {
	rc     io.ReadCloser
	once   sync.Once
	read   atomic.Int64
	ended  atomic.Bool // io.EOF was seen
	cause  atomic.Pointer[error]
	closed atomic.Bool
}

func (s *uploadBody) Read(p []byte) (int, error) {
	n, err := s.rc.Read(p)
	s.read.Add(int64(n))
	switch {
	case errors.Is(err, io.EOF):
		s.ended.Store(true)
	case err != nil && !s.closed.Load():
		s.fail(err)
	}
	return n, err
}

// fail records the first error of the source of the bytes.
func (s *uploadBody) fail(err error) { s.cause.CompareAndSwap(nil, &err) }

func (s *uploadBody) failure() error {
	if p := s.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// Close closes the source of the bytes. If Close interrupts a Read, the error of that Read is not
// recorded.
func (s *uploadBody) Close() (err error) {
	s.closed.Store(true)
	s.once.Do(func() { err = s.rc.Close() })
	return err
}
