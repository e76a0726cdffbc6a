package upstream

import (
	"context"
	"net/http"

	"dray/upstream/oci"
)

// Hello asks whether the registry speaks the protocol (OCI distribution spec 1.1, end-1). It opens
// a connection, and gets the credentials or token that later requests need. It returns the error
// that later requests would get.
func (c *Client) Hello(ctx context.Context) error {
	req, err := c.request(ctx, oci.Request{Kind: oci.KindBase, Method: http.MethodGet}, nil)
	if err != nil {
		return err
	}
	resp, err := c.read(req, Repo{}, oci.KindBase)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}
