package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"

	"dray/mirror/repository"
	"dray/mirror/wire"
	"dray/upstream/oci"
)

// Immutable is the Cache-Control of an answer to a request that names a digest.
const Immutable = "max-age=31536000, immutable"

// immutable is the header line that all answers with Immutable share.
var immutable = []string{Immutable}

// ETag returns the entity tag of the content with digest d. The tag is strong, because equal
// digests mean equal bytes.
func ETag(d digest.Digest) string { return `"` + d.String() + `"` }

// Describe records the digest of the answer's content and its size in bytes. A negative size means
// that the size is unknown.
func (x *Request) Describe(d digest.Digest, size int64) { x.digest, x.size = d, size }

// Content returns the digest and the size that [Request.Describe] recorded. The digest is "" if the
// answer has no content.
func (x *Request) Content() (d digest.Digest, size int64) { return x.digest, x.size }

// SendManifest answers GET and HEAD for a manifest.
func (x *Request) SendManifest(m *repository.Manifest) error {
	return x.Send(m.Digest, wire.Content{MediaType: m.MediaType, Size: int64(len(m.Raw)), Body: bytes.NewReader(m.Raw), Small: true})
}

// Send answers GET and HEAD for content. The answer is the whole content, a range of it, or "not
// modified".
func (x *Request) Send(d digest.Digest, c wire.Content) error {
	x.Describe(d, c.Size)
	c.ETag = ETag(d)
	h := x.W.Header()
	values := [...]string{d.String(), x.Source} // the lines share one allocation
	h["Docker-Content-Digest"], h["X-Cache"] = values[:1:1], values[1:]
	if x.Q.Ref.ByDigest() {
		h["Cache-Control"] = immutable
	}
	x.CountSent()
	err := x.W.Send(c)
	if err != nil && !x.W.Started() {
		return x.Repo.Up.Broken(err)
	}
	return err
}

// SendList sends one page of a list. The link to the next page is a path that the client can
// follow.
func (x *Request) SendList(body []byte, mediaType string, next url.Values) error {
	h := x.W.Header()
	if len(next) > 0 {
		if x.Q.Namespace != "" {
			next.Set("ns", x.Q.Namespace)
		}
		h.Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", x.Q.Path(), next.Encode()))
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := x.W.Write(body)
	return err
}

// Created answers that the repository now has a blob.
func (x *Request) Created(d digest.Digest) error {
	return x.CreatedAt(oci.Request{Kind: oci.KindBlob, Ref: oci.Reference{Digest: d}}, d)
}

// CreatedAt answers that the repository now has content with the digest d, at the location of q.
func (x *Request) CreatedAt(q oci.Request, d digest.Digest) error {
	h := x.W.Header()
	h.Set("Location", x.Location(q))
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", strconv.Itoa(0))
	x.W.WriteHeader(http.StatusCreated)
	return nil
}

// Location returns the address of q in the request's repository. It has the prefix, or the ?ns=, by
// which the client selected the upstream. If the listener has an ExternalURL, the address is a URL,
// because some clients do not resolve a path. Without an ExternalURL, it is a path, because dray
// may be behind a proxy whose scheme and host it does not know. It is also a path if the host of
// the ExternalURL would select another upstream than the client's Host header did.
func (x *Request) Location(q oci.Request) string {
	q.Prefix, q.Repo, q.Namespace, q.N = x.Q.Prefix, x.Q.Repo, x.Q.Namespace, -1
	external, err := url.Parse(x.Listener.ExternalURL)
	if err != nil || external.Host == "" {
		return q.URL()
	}
	here, err := x.Listener.Routes.Match(x.R.Host, q)
	if there, err2 := x.Listener.Routes.Match(external.Host, q); err != nil || err2 != nil || there != here {
		return q.URL()
	}
	return x.Listener.ExternalURL + q.URL()
}

// Deleted answers that a deletion was accepted (spec, "Deleting Tags").
func (x *Request) Deleted() error {
	x.W.Header().Set("Content-Length", "0")
	x.W.WriteHeader(http.StatusAccepted)
	return nil
}

// contentHeaders are the headers that describe content and must not describe an error.
var contentHeaders = []string{"Accept-Ranges", "Cache-Control", "Docker-Content-Digest", "Etag", "Warning", "X-Cache"}

// Explain adds advice to the error of a GET or HEAD for a manifest that is not found or is denied,
// if the client perhaps means another registry. It returns any other error unchanged.
func (x *Request) Explain(err error) error {
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || x.Q.Kind != oci.KindManifest || x.Q.Write() {
		return err
	}
	switch hint := x.Listener.Routes.Hint(x.Target); {
	case hint == "":
		return err
	case e.Status == http.StatusNotFound, e.Status == http.StatusForbidden, e.Status == http.StatusUnauthorized:
		return e.With("%s; %s", e.Message, hint)
	}
	return err
}

var errClientLeft = errors.New("the client disconnected")

// Fail sends an error to the client, and returns the error to log. If the client seems to have
// left, the returned error says so. The client may have closed only its side of the connection, so
// Fail still sends an [oci.Error] to a client that seems to have left. It sends no other error to
// such a client, and breaks the connection instead.
func (x *Request) Fail(err error) error {
	if x.R.Context().Err() != nil {
		err = errors.Join(errClientLeft, err)
		if _, verdict := errors.AsType[*oci.Error](err); !verdict {
			x.W.Break()
			return err
		}
	}
	x.W.CountSent(nil)
	for _, h := range contentHeaders {
		x.W.Header().Del(h)
	}
	if e := oci.AsError(err); e.Status >= http.StatusInternalServerError && e.Detail == nil {
		told := *e // the operator finds the failure in the log by the request's ID
		told.Detail, _ = json.Marshal(map[string]string{"request_id": x.ID})
		oci.WriteError(&x.W, &told)
		return err
	}
	oci.WriteError(&x.W, err)
	return err
}
