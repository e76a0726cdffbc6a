package upstream

import (
	"context"
	"net/http"

	"dray/upstream/oci"
)

// Hello asks whether the registry speaks the protocol with this mirror (OCI distribution spec 1.1,
// end-1). It leaves behind what the next request needs, a connection and credentials or a token,
// and fails with what that one would fail with.
func (c *Client) Hello(ctx context.Context) error {
	req, err := c.request(ctx, oci.Request{Kind: oci.KindBase, Method: http.MethodGet}, nil)
	if err != nil {
		return err
	}
	resp, err := c.read(req, Repo{}, oci.KindBase)
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}
