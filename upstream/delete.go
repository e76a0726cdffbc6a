package upstream

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// DeleteManifest implements Deleter.
func (c *Client) DeleteManifest(ctx context.Context, repo Repo, ref oci.Reference) error {
	return c.remove(ctx, repo, oci.Request{Kind: oci.KindManifest, Ref: ref})
}

// DeleteBlob implements Deleter.
func (c *Client) DeleteBlob(ctx context.Context, repo Repo, d digest.Digest) error {
	return c.remove(ctx, repo, oci.Request{Kind: oci.KindBlob, Ref: oci.Reference{Digest: d}})
}

// remove sends a DELETE, with the same retries as other writes. A 404 after an earlier attempt is
// success, because that attempt may have deleted the content.
func (c *Client) remove(ctx context.Context, repo Repo, q oci.Request) error {
	q.Method, q.Repo = http.MethodDelete, repo.Name
	tried := false
	return c.attempts(ctx, repo, "deletion from "+q.Repo, func(repo Repo) error {
		again := tried
		tried = true
		req, err := c.request(auth.WithScope(ctx, auth.DeleteScope(q.Repo)), q, nil)
		if err != nil {
			return err
		}
		resp, err := c.send(idempotent(req), repo, q.Kind)
		if err != nil {
			return err
		}
		defer drain(resp)
		switch {
		case resp.StatusCode == http.StatusAccepted, resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusNoContent:
			return nil
		case resp.StatusCode == http.StatusNotFound && again:
			return nil
		}
		return c.answerError(resp)
	})
}
