package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// maxPageBytes bounds one page of a listing. It allows for registries without pages, which send the
// whole list at once.
const maxPageBytes = 16 << 20

// Tags implements Lister.
func (c *Client) Tags(ctx context.Context, repo Repo, query url.Values) (Page, error) {
	p, err := c.page(ctx, repo, oci.Request{Method: http.MethodGet, Kind: oci.KindTags}, query)
	if err == nil && !json.Valid(p.Body) {
		h := http.Header{"Content-Type": {p.ContentType}}
		err = otherThan("a list", c.o.Name, h, fmt.Errorf("list of %s: no JSON", repo.Name))
	}
	return p, err
}

// Referrers implements Lister. The spec demands 200 with an index, which is empty if there are no
// referrers (1.1, "Listing Referrers"). Registries without the call answer 404, 400, 405, 406
// (Artifactory, go-containerregistry#1962) or 501, or 200 with a web page. A 404 may concern only
// the repository. After any of these answers except 404, Referrers sends the registry no request
// until noReferrersFor has passed.
func (c *Client) Referrers(ctx context.Context, repo Repo, d digest.Digest, query url.Values) (Page, error) {
	if time.Now().UnixNano() < c.noReferrers.Load() {
		return Page{}, unsupported(c.o.Name, "a moment ago it had no such call")
	}
	q := oci.Request{Method: http.MethodGet, Kind: oci.KindReferrers, Ref: oci.Reference{Digest: d}}
	p, err := c.page(ctx, repo, q, query)
	e, ok := errors.AsType[*oci.Error](err)
	switch {
	case err == nil && index(p.Body):
		return p, nil
	case err == nil:
		err = unsupported(c.o.Name, "it answers with something other than an index")
	case !ok || !noSuchCall(e):
		return p, err
	case e.Status == http.StatusNotFound:
		return Page{}, unsupported(c.o.Name, e.Message)
	default:
		err = unsupported(c.o.Name, e.Message)
	}
	c.noReferrers.Store(time.Now().Add(noReferrersFor).UnixNano())
	return Page{}, err
}

// noReferrersFor is how long Referrers sends no request to a registry that has shown that it has no
// referrers call.
const noReferrersFor = time.Minute

// unsupported returns the error for a registry without the referrers call.
func unsupported(name, why string) error {
	return oci.ErrUnsupported.With("the upstream registry %s does not list referrers: %s", name, why).
		WithStatus(http.StatusNotFound).Because(ErrReferrersUnsupported)
}

// noSuchCall reports whether an error answer to a call may mean that the registry does not have the
// call.
func noSuchCall(e *oci.Error) bool {
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return false
	}
	return e.Status/100 == 4 && !temporary(e.Status) || e.Status == http.StatusNotImplemented
}

// index reports whether body is an index. The Content-Type does not count, because ECR sends lists
// as text/plain.
func index(body []byte) bool {
	type entry struct {
		Digest digest.Digest `json:"digest"`
	}
	var list struct {
		MediaType string  `json:"mediaType"`
		Manifests []entry `json:"manifests"`
	}
	if json.Unmarshal(body, &list) != nil || list.Manifests == nil || list.MediaType != "" && list.MediaType != oci.MediaTypeOCIIndex {
		return false
	}
	return !slices.ContainsFunc(list.Manifests, func(e entry) bool { return e.Digest.Validate() != nil })
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
