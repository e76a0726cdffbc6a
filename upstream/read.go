package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// Manifest implements Source.
func (c *Client) Manifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	resp, err := c.manifest(ctx, http.MethodGet, repo, ref, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := readAll(resp, oci.MaxPulledBytes)
	if err != nil {
		return nil, c.bodyError(ctx, err)
	}
	if len(raw) > oci.MaxPulledBytes {
		return nil, oci.ErrSizeInvalid.With("the manifest of the upstream registry %s is larger than the limit of %d bytes", c.o.Name, oci.MaxPulledBytes).
			WithStatus(http.StatusBadGateway).Because(ErrCorrupt) // a retry would get the same manifest
	}
	return proven(c.o.Name, resp, repo, ref, raw)
}

// proven returns the manifest in an answer if the manifest has the requested digest and the digest
// that the registry states. If neither digest is known, the answer must look like a manifest. If a
// digest is known, proven accepts any content that has the digest.
func proven(registry string, resp *http.Response, repo Repo, ref oci.Reference, raw []byte) (*oci.Manifest, error) {
	m, err := oci.ReadManifest(resp.Header.Get("Content-Type"), raw)
	stated := statedDigest(resp)
	if ref.Digest == "" && stated == "" && err != nil && !m.Plausible() {
		return nil, otherThan("a manifest", registry, resp.Header, fmt.Errorf("manifest %s of %s: %w", ref, repo.Name, err))
	}
	for _, want := range []digest.Digest{ref.Digest, stated} {
		if want != "" && !m.Is(want) {
			return nil, otherThan("the manifest", registry, resp.Header, fmt.Errorf("manifest %s of %s: digest is %s, not %s", ref, repo.Name, m.Digest, want))
		}
	}
	if ref.Tag != "" && stated != "" {
		m.Digest = stated // the registry may use another algorithm
	}
	return m, nil
}

// StatManifest implements Source. It sends HEAD first, because HEAD is cheaper. It skips HEAD after
// HEAD has failed several times in a row (see heads). If HEAD fails or does not describe the
// manifest, StatManifest sends GET, unless GET would fail, too (see unanswered): some registries
// serve HEAD differently from GET.
func (c *Client) StatManifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	tried := c.heads.worthwhile(time.Now())
	if tried {
		d, err := c.headManifest(ctx, repo, ref, accept)
		if err == nil {
			c.heads.succeeded()
		}
		if err == nil || unanswered(err) {
			return d, err
		}
	}
	m, err := c.Manifest(ctx, repo, ref, accept)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if tried {
		c.heads.failed(time.Now())
	}
	d := m.Descriptor()
	d.Data = m.Raw
	return d, nil
}

// unanswered reports whether a HEAD failed in a way in which a GET would fail, too. For example,
// the registry is unreachable or throttles.
func unanswered(err error) bool {
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrBusy) || errors.Is(err, ErrCredentials) || errors.Is(err, context.Canceled) {
		return true
	}
	e, ok := errors.AsType[*oci.Error](err)
	return ok && (e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0)
}

// headManifest describes a manifest with 1 HEAD. It fails if the answer lacks the digest, the size
// or the media type.
func (c *Client) headManifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	resp, err := c.manifest(ctx, http.MethodHead, repo, ref, accept)
	if err != nil {
		return oci.Descriptor{}, err
	}
	drain(resp)
	d := oci.Descriptor{MediaType: oci.BareType(resp.Header.Get("Content-Type")), Digest: statedDigest(resp), Size: length(resp)}
	if ref.Digest != "" && d.Digest != ref.Digest && d.Digest.Algorithm() == ref.Digest.Algorithm() {
		return oci.Descriptor{}, c.corrupt("manifest %s of %s: registry states %s", ref, repo.Name, d.Digest)
	}
	if d.Digest == "" || d.Size < 0 || d.MediaType == "" {
		return oci.Descriptor{}, c.corrupt("manifest %s of %s: HEAD does not describe it", ref, repo.Name)
	}
	return d, nil
}

const (
	// uselessHeads is a number of manifests. If HEAD fails and GET works for so many manifests in a
	// row, the client stops sending HEAD. One such manifest is not enough: a manifest may be pushed
	// between HEAD and GET.
	uselessHeads = 3
	// headAgain is the time after which the client tries HEAD once more.
	headAgain = time.Hour
)

// heads records whether HEAD requests for manifests are of use at a registry.
type heads struct {
	mu      sync.Mutex // guards the fields below
	useless int
	again   time.Time
}

// worthwhile reports whether the client should send HEAD.
func (h *heads) worthwhile(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.useless < uselessHeads || !now.Before(h.again)
}

func (h *heads) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.useless = 0
}

// [heads.failed] records that GET worked for a manifest after HEAD had failed.
func (h *heads) failed(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.useless, h.again = h.useless+1, now.Add(headAgain)
}

func (c *Client) manifest(ctx context.Context, method string, repo Repo, ref oci.Reference, accept []string) (*http.Response, error) {
	q := oci.Request{Method: method, Kind: oci.KindManifest, Repo: repo.Name, Ref: ref}
	req, err := c.request(auth.WithScope(ctx, auth.PullScope(repo.Name)), q, nil)
	if err != nil {
		return nil, err
	}
	if len(accept) > 0 {
		req.Header["Accept"] = accept
	}
	return c.read(req, repo, oci.KindManifest)
}

// length returns the length of the content of an answer in bytes; -1 if unknown.
func length(resp *http.Response) int64 {
	if oci.Compressed(resp) {
		return -1
	}
	return resp.ContentLength
}

// statedDigest returns the digest in the headers of an answer, or "" if the headers have no digest
// of a known form and algorithm.
func statedDigest(resp *http.Response) digest.Digest {
	d, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return ""
	}
	return d
}

// Blob implements Source. If the registry redirects to storage, and this storage refuses the
// request, Blob asks the registry once more. For example, S3 refuses a URL whose signature has
// expired.
func (c *Client) Blob(ctx context.Context, r BlobRequest) (BlobStream, error) {
	resp, err := c.blob(ctx, http.MethodGet, r)
	if errors.Is(err, ErrStorage) && !errors.Is(err, oci.ErrRangeInvalid) {
		resp, err = c.blob(ctx, http.MethodGet, r)
	}
	if err == nil {
		err = c.noDocument(ctx, resp, r)
	}
	if err != nil {
		return BlobStream{}, err
	}
	s := BlobStream{Body: resp.Body, Size: resp.ContentLength, Ranges: true}
	if r.From == 0 && resp.StatusCode == http.StatusOK {
		s.Ranges = r.To == 0
		return s, nil
	}
	if resp.StatusCode == http.StatusOK {
		s.Skip, s.Ranges = r.From, false
		return s, nil
	}
	start, size, err := contentRange(resp)
	if err != nil || start != r.From {
		_ = resp.Body.Close()
		return BlobStream{}, c.corrupt("blob %s of %s: status %d with range %q for offset %d",
			r.Digest, r.Repo.Name, resp.StatusCode, resp.Header.Get("Content-Range"), r.From)
	}
	s.Size = size
	return s, nil
}

// StatBlob implements Source. If the registry or its storage refuses HEAD, or answers it with a web
// page, StatBlob gets the first byte instead. For example, a storage whose URLs are signed for GET
// refuses HEAD.
func (c *Client) StatBlob(ctx context.Context, repo Repo, d digest.Digest) (int64, error) {
	if !c.o.Quirks.BlobHeadUnsupported {
		resp, err := c.blob(ctx, http.MethodHead, BlobRequest{Repo: repo, Digest: d})
		if err == nil {
			drain(resp)
		}
		page := err == nil && typeOf(resp.Header) == htmlType
		if err == nil && !page {
			return length(resp), nil
		}
		if !page && !headRefused(err) {
			return 0, err
		}
	}
	r := BlobRequest{Repo: repo, Digest: d, To: 1}
	resp, err := c.blob(ctx, http.MethodGet, r)
	if err == nil {
		err = c.noDocument(ctx, resp, r)
	}
	if errors.Is(err, oci.ErrRangeInvalid) { // an empty blob has no first byte
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return length(resp), nil
	}
	_, size, err := contentRange(resp)
	if err != nil {
		return 0, c.corrupt("blob %s of %s: %w", d, repo.Name, err)
	}
	return size, nil
}

// headRefused reports whether an error may concern the method HEAD and not the blob.
func headRefused(err error) bool {
	if e, ok := errors.AsType[storageError](err); ok {
		return e.refuses()
	}
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || errors.Is(err, ErrCredentials) || errors.Is(err, errUnauthorized) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

func (c *Client) blob(ctx context.Context, method string, r BlobRequest) (*http.Response, error) {
	q := oci.Request{Method: method, Kind: oci.KindBlob, Repo: r.Repo.Name, Ref: oci.Reference{Digest: r.Digest}}
	req, err := c.request(auth.WithScope(ctx, auth.PullScope(r.Repo.Name)), q, nil)
	if err != nil {
		return nil, err
	}
	if r.To > r.From {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.From, r.To-1))
	} else if r.From > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.From))
	}
	return c.read(req, r.Repo, oci.KindBlob)
}

// contentRange parses the Content-Range of a 206 (RFC 9110 section 14.4). It returns the offset of
// the first byte and the size of the whole blob, which is -1 if unknown.
func contentRange(resp *http.Response) (start, size int64, err error) {
	v := resp.Header.Get("Content-Range")
	bad := fmt.Errorf("content range %q", v)
	span, total, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	if resp.StatusCode != http.StatusPartialContent || !ok || !ok2 || !strings.HasPrefix(v, "bytes ") {
		return 0, 0, bad
	}
	a, err1 := strconv.ParseInt(first, 10, 64)
	b, err2 := strconv.ParseInt(last, 10, 64)
	if err1 != nil || err2 != nil || a < 0 || b < a || resp.ContentLength >= 0 && resp.ContentLength != b-a+1 {
		return 0, 0, bad
	}
	if total == "*" {
		return a, -1, nil
	}
	size, err = strconv.ParseInt(total, 10, 64)
	if err != nil || size <= b {
		return 0, 0, bad
	}
	return a, size, nil
}
