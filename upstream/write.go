package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// Mount implements Sink. A registry that cannot mount the blob opens an upload session instead.
// Mount does not use the session, and lets it expire.
func (c *Client) Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (bool, error) {
	q := oci.Request{Method: http.MethodPost, Kind: oci.KindUploads, Repo: repo.Name, Mount: d, From: from}
	scopes := []string{auth.PushScope(repo.Name)}
	if from != "" && from != repo.Name {
		scopes = append(scopes, auth.PullScope(from))
	}
	req, err := c.request(auth.WithScope(ctx, scopes...), q, nil)
	if err != nil {
		return false, err
	}
	resp, err := c.send(idempotent(req), repo, oci.KindUploads)
	if err != nil {
		return false, c.o.startError(repo.Name, err)
	}
	defer drain(resp)
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		return false, nil
	}
	// Mount does not call writeError, which reports any 404 to a POST as a missing target repository.
	// A 404 to a mount may concern the source repository instead.
	return false, repositoryMissing(c.answerError(resp), repo.Name)
}

// PutManifest implements Sink.
func (c *Client) PutManifest(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (Pushed, error) {
	var p Pushed
	// The PUT waits in the Limiter's queue only as long as a read would. The maxWait that c.attempts
	// passes would let the PUT wait for the whole budget.
	wait := repo.maxWait
	err := c.attempts(ctx, repo, "manifest of "+repo.Name, func(repo Repo) (err error) {
		repo.maxWait = wait
		p, err = c.putTagged(auth.WithScope(ctx, auth.PushScope(repo.Name)), repo, ref, m)
		return err
	})
	e, ok := errors.AsType[*oci.Error](err)
	switch {
	case !ok:
		return p, err
	case c.o.Quirks.ImmutableTagAlways && errors.Is(e, oci.ErrTagInvalid) && strings.Contains(strings.ToLower(e.Message), "immutable"):
		return c.immutable(ctx, repo, ref, m, e)
	case e.Status != http.StatusMethodNotAllowed && !(m.ListsBlobs() && e.Status/100 == 4):
		return p, err
	}
	if hint := c.o.Quirks.Unsupported.of(m); hint != "" {
		explained := *e
		explained.Message = strings.TrimSuffix(e.Message, ".") + ". " + hint
		return p, &explained
	}
	return p, err
}

// putTagged sends a manifest under ref. A registry computes the sha256 digest of a manifest that is
// pushed by tag. So if m.Digest has another algorithm, putTagged pushes by digest, with the tag
// as a query parameter. If the answer lacks the header OCI-Tag, the registry has ignored the
// parameter, and putTagged pushes by tag.
func (c *Client) putTagged(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (Pushed, error) {
	if ref.Tag != "" && m.Digest.Algorithm() != digest.SHA256 {
		p, tagged, err := c.putManifest(ctx, repo, oci.Request{Ref: oci.Reference{Digest: m.Digest}, Tags: []string{ref.Tag}}, m)
		if err != nil || tagged {
			return p, err
		}
	}
	p, _, err := c.putManifest(ctx, repo, oci.Request{Ref: ref}, m)
	return p, err
}

// putManifest makes one PUT. tagged says that the registry accepted the tags in the query.
func (c *Client) putManifest(ctx context.Context, repo Repo, q oci.Request, m *oci.Manifest) (p Pushed, tagged bool, err error) {
	q.Method, q.Kind, q.Repo = http.MethodPut, oci.KindManifest, repo.Name
	req, err := c.request(ctx, q, nil)
	if err != nil {
		return Pushed{}, false, err
	}
	req.Header.Set("Content-Type", m.MediaType)
	req.ContentLength = int64(len(m.Raw))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.Raw)), nil }
	req.Body, _ = req.GetBody()
	resp, err := c.send(idempotent(req), repo, oci.KindManifest)
	if err != nil {
		return Pushed{}, false, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return Pushed{}, false, c.manifestError(resp, q.Repo)
	}
	if d := statedDigest(resp); d != "" && d != m.Digest && d != d.Algorithm().FromBytes(m.Raw) {
		return Pushed{}, false, c.corrupt("manifest %s of %s: accepted as %s, sent %s", q.Ref, q.Repo, d, m.Digest)
	}
	subject, err := oci.ParseDigest(resp.Header.Get("OCI-Subject"))
	if err != nil {
		subject = ""
	}
	return Pushed{Digest: m.Digest, Subject: subject}, resp.Header.Get("OCI-Tag") != "", nil
}

// immutable distinguishes a repeated push of the same manifest, which is success, from an attempt
// to move a tag. ECR refuses both with the same error, so immutable asks the registry for the
// digest of the tag.
func (c *Client) immutable(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest, refusal *oci.Error) (Pushed, error) {
	present, err := c.StatManifest(ctx, repo, ref, []string{m.MediaType})
	if err != nil {
		return Pushed{}, refusal
	}
	if present.Digest == m.Digest {
		return Pushed{Digest: m.Digest}, nil
	}
	e := *refusal
	e.Message = fmt.Sprintf("%s (the tag points to %s, and the push was %s)", strings.TrimSuffix(e.Message, "."), present.Digest, m.Digest)
	return Pushed{}, &e
}

func (c *Client) manifestError(resp *http.Response, repo string) error {
	err := c.writeError(resp, repo)
	if e, ok := errors.AsType[*oci.Error](err); ok && c.o.Quirks.partsMissing(e) {
		return e.Because(errors.Join(ErrPartsMissing, e.Err))
	}
	return err
}

// partsMissing reports whether a manifest was refused because the registry lacks a blob or manifest
// that the refused manifest names. In an answer to a pushed manifest, a code about blobs or uploads
// can have no other meaning.
func (q Quirks) partsMissing(e *oci.Error) bool {
	if e.Status/100 != 4 {
		return false
	}
	text := strings.ToLower(e.Message)
	return errors.Is(e, oci.ErrManifestBlobUnknown) || errors.Is(e, oci.ErrBlobUnknown) || errors.Is(e, oci.ErrBlobUploadUnknown) ||
		slices.ContainsFunc(q.MissingPartsTexts, func(t string) bool { return strings.Contains(text, t) })
}

// writeError returns the error for a refused write.
func (c *Client) writeError(resp *http.Response, repo string) error {
	err := c.answerError(resp)
	e, ok := errors.AsType[*oci.Error](err)
	// A POST starts an upload. A 404 to it can only concern the repository, whatever the code is.
	if ok && e.Status == http.StatusNotFound && resp.Request != nil && resp.Request.Method == http.MethodPost {
		missing := *e
		missing.Code = oci.ErrNameUnknown.Code
		err = &missing
	}
	return repositoryMissing(err, repo)
}

// repositoryMissing adds ErrRepositoryMissing to an error with the code NAME_UNKNOWN.
func repositoryMissing(err error, repo string) error {
	if e, ok := errors.AsType[*oci.Error](err); ok && errors.Is(e, oci.ErrNameUnknown) {
		return e.Because(fmt.Errorf("%w: %s", ErrRepositoryMissing, repo))
	}
	return err
}

// startError returns the error for an upload whose start got no answer. If the registry closed the
// connection, and may do so for a missing repository (MissingRepositoryCloses), the error is a 403.
// Clients show the text of a 403, and the text says that the repository or a permission may be
// missing.
func (o Options) startError(repo string, err error) error {
	if !o.Quirks.MissingRepositoryCloses || !closedUnanswered(err) {
		return err
	}
	return oci.ErrDenied.
		With("the upstream registry %s closed the connection; it does that if the repository %s does not exist, or if this mirror must not push to it", o.Name, repo).
		Because(fmt.Errorf("%w: %w", ErrRepositoryMissing, err))
}

// idempotent lets the transport repeat a request on a new connection if a reused connection turns
// out to be closed. The transport does so for requests with the header Idempotency-Key, and does
// not send this header if its value is empty (net/http, Transport).
func idempotent(req *http.Request) *http.Request {
	req.Header["Idempotency-Key"] = []string{}
	return req
}

// restartError marks a failure after which the upload is repeated once, in a new session.
type restartError struct{ error }

func (r restartError) Unwrap() error { return r.error }

// localError marks a failure that comes from the bytes to send, such as a read error or an empty
// blob that the registry does not accept. The write is not repeated.
type localError struct{ error }

func (l localError) Unwrap() error { return l.error }

// attempts calls the function write until it succeeds or fails for good, or until WriteAttempts or
// WriteBudget is used up. The maxWait of the Repo that write receives lets a request wait in the
// Limiter's queue until the end of the budget.
func (c *Client) attempts(ctx context.Context, repo Repo, what string, write func(Repo) error) error {
	end := time.Now().Add(c.o.WriteBudget)
	restarted := false
	for n := 0; ; n++ {
		repo.maxWait, repo.before = time.Until(end), n
		err := write(repo)
		_, again := errors.AsType[restartError](err)
		if !repeatable(err) && (!again || restarted) {
			return err
		}
		restarted = restarted || again
		repo.observe(err)
		d := pause(n, err)
		if errors.Is(err, errPaused) && time.Now().Before(end) {
			n-- // an attempt that ends in a pause of the limiter does not count; the budget still bounds the time
		}
		if n+1 >= c.o.WriteAttempts || time.Now().Add(d).After(end) {
			return err
		}
		c.o.Logger.DebugContext(ctx, "retried write", "upstream", c.o.Name, "what", what, "attempt", n+1, "error", err)
		if sleep(ctx, d) != nil {
			return err
		}
	}
}

func repeatable(err error) bool {
	if _, ok := errors.AsType[localError](err); ok || err == nil {
		return false
	}
	if _, ok := errors.AsType[*OpenError](err); ok || errors.Is(err, ErrBusy) {
		return false
	}
	if e, ok := errors.AsType[storageError](err); ok && e.refuses() {
		return false
	}
	return Transient(err) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrCredentials) && !errors.Is(err, ErrRepositoryMissing)
}
