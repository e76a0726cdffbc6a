package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// maxPageBytes bounds one page of a listing. A registry that does not page sends everything at
// once.
const maxPageBytes = 16 << 20

// Tags implements Lister.
func (c *Client) Tags(ctx context.Context, repo Repo, query url.Values) (Page, error) {
	return c.page(ctx, repo, oci.Request{Method: http.MethodGet, Kind: oci.KindTags}, query)
}

// Referrers implements Lister. The spec demands 200 with an empty list if there are no
// referrers (1.1, "Listing Referrers"), so 404 means that the registry does not know the call.
func (c *Client) Referrers(ctx context.Context, repo Repo, d digest.Digest, query url.Values) (Page, error) {
	q := oci.Request{Method: http.MethodGet, Kind: oci.KindReferrers, Ref: oci.Reference{Digest: d}}
	p, err := c.page(ctx, repo, q, query)
	if e, ok := errors.AsType[*oci.Error](err); ok && e.Status == http.StatusNotFound {
		return Page{}, e.Because(fmt.Errorf("%w: %s", ErrReferrersUnsupported, e.Message))
	}
	return p, err
}

func (c *Client) page(ctx context.Context, repo Repo, q oci.Request, query url.Values) (Page, error) {
	q.Repo = repo.Name
	query = maps.Clone(query)
	if n, err := strconv.Atoi(query.Get("n")); err == nil && c.o.Quirks.MaxPage > 0 && n > c.o.Quirks.MaxPage {
		query.Set("n", strconv.Itoa(c.o.Quirks.MaxPage))
	}
	if query == nil {
		query = url.Values{}
	}
	req, err := c.request(auth.WithScope(ctx, auth.PullScope(q.Repo)), q, query)
	if err != nil {
		return Page{}, err
	}
	resp, err := c.read(req, repo, q.Kind)
	if err != nil {
		return Page{}, err
	}
	defer resp.Body.Close()
	body, err := readAll(resp, maxPageBytes)
	if err != nil {
		return Page{}, c.bodyError(ctx, err)
	}
	if len(body) > maxPageBytes {
		return Page{}, c.corrupt("list of %s: page over %d bytes", q.Repo, maxPageBytes)
	}
	next := nextPage(resp.Header)
	if next != nil && samePage(next, query) {
		return Page{}, c.corrupt("list of %s: the link to the next page leads to the same page", q.Repo)
	}
	return Page{
		Body: body, ContentType: resp.Header.Get("Content-Type"), Next: next,
		FiltersApplied: resp.Header.Get("OCI-Filters-Applied"),
	}, nil
}
