package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"dray/upstream/oci"
)

// maxDocument bounds the documents that noDocument recognises, in bytes.
const maxDocument = 1 << 20

// htmlType is the media type of web pages, such as login pages.
const htmlType = "text/html"

// typeOf returns the media type of an answer, without parameters and in lower case.
func typeOf(h http.Header) string {
	return strings.ToLower(oci.BareType(h.Get("Content-Type")))
}

// document reports whether a media type is typical of documents that servers other than registries
// send, such as login pages and errors of proxies. Some blobs have such types, too.
func document(mediaType string) bool {
	switch mediaType {
	case "application/json", "application/xml", "application/xhtml+xml", "application/problem+json":
		return true
	}
	return strings.HasPrefix(mediaType, "text/") && len(mediaType) < 64
}

// otherThan returns the error for an answer that is not the requested manifest or blob. If the
// answer is a document, the text of the error says so.
func otherThan(what, registry string, h http.Header, cause error) error {
	came := typeOf(h)
	if !document(came) {
		return mismatch(registry, cause)
	}
	return unusable(oci.ErrUnknown.With("the upstream registry %s, or a proxy before it, sent a document of the type %s instead of %s", registry, came, what), cause)
}

// noDocument returns an error if the answer to a GET of a blob is a document in place of the blob.
// Some blobs have the media type of a document, so noDocument reads the answer and compares its
// digest. It considers an answer of more than maxDocument bytes to be the blob. Afterwards the
// caller can still read the body of resp in full. If there is an error, the body is closed.
func (c *Client) noDocument(ctx context.Context, resp *http.Response, r BlobRequest) error {
	if resp.StatusCode != http.StatusOK || !document(typeOf(resp.Header)) {
		return nil
	}
	defer abortAfter(resp, answerTimeout).Stop()
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && (len(head) > maxDocument || r.Digest.Algorithm().FromBytes(head) == r.Digest) {
		resp.Body = &joinedBody{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
		return nil
	}
	_ = resp.Body.Close()
	if err != nil {
		return c.bodyError(ctx, err)
	}
	return otherThan("the blob", c.o.Name, resp.Header, fmt.Errorf("blob %s of %s: %d bytes with another digest", r.Digest, r.Repo.Name, len(head)))
}

// joinedBody is a body whose start was read and put back.
type joinedBody struct {
	io.Reader
	io.Closer
}
