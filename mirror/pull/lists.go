package pull

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// Tags answers with a page of the upstream's tags. The upstream decides the order of the tags and
// the query for the next page (ECR's query is opaque). Tags of queued pushes are added to the last
// page. The repository's name and the link to the next page are rewritten for the client.
func (p *Puller) Tags(x *request.Request) error {
	query, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	if x.Q.N >= 0 {
		query.Set("n", strconv.Itoa(x.Q.N))
	}
	if x.Q.Last != "" {
		query.Set("last", x.Q.Last)
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	x.Source = fromOrigin
	page, err := x.Repo.Up.Lister.Tags(ctx, x.Repo.Remote(), query)
	if err != nil && len(x.Repo.QueuedTags()) > 0 {
		x.Source = fromCache
		page, err = upstream.Page{Body: []byte("{}")}, nil // answer with the queued tags alone
	}
	if err != nil {
		return err
	}
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(page.Body, &list); err != nil {
		return badListing(x.Repo, err)
	}
	if len(page.Next) == 0 {
		list.Tags = withQueued(x.Repo.QueuedTags(), list.Tags, x.Q.Last, x.Q.N)
	}
	if list.Tags == nil { // some registries send null, which some clients cannot read
		list.Tags = []string{}
	}
	list.Name = x.Q.Repo
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return x.SendList(body, "application/json; charset=utf-8", page.Next)
}

// Referrers answers with the referrers of a manifest. If the registry does not support the
// referrers API, they are read from the fallback tag (spec, "Listing Referrers").
func (p *Puller) Referrers(x *request.Request) error {
	query, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	if x.Q.ArtifactType != "" {
		query.Set("artifactType", x.Q.ArtifactType)
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	page, err := x.Repo.Up.Lister.Referrers(ctx, x.Repo.Remote(), x.Q.Ref.Digest, query)
	if errors.Is(err, upstream.ErrReferrersUnsupported) {
		return p.referrersByTag(x)
	}
	if err != nil {
		return err
	}
	x.Source = fromOrigin
	if page.FiltersApplied != "" {
		x.W.Header().Set("OCI-Filters-Applied", page.FiltersApplied)
	}
	return x.SendList(page.Body, oci.MediaTypeOCIIndex, page.Next)
}

func (p *Puller) referrersByTag(x *request.Request) error {
	name := upstream.FallbackTag(x.Q.Ref.Digest)
	accept := []string{oci.MediaTypeOCIIndex}
	a, err := p.byTagOrQueued(x.R.Context(), tag{repo: x.Repo, name: name, accept: accept})
	switch {
	case oci.NotFound(err) && !errors.Is(err, oci.ErrNameUnknown), err == nil && a.Digest == x.Q.Ref.Digest:
		// The second condition means that the registry has taken the tag for the digest, as
		// registry.gitlab.com does. It has sent the subject itself, whose platforms are no referrers.
		return x.SendList([]byte(`{"schemaVersion":2,"mediaType":"`+oci.MediaTypeOCIIndex+`","manifests":[]}`), oci.MediaTypeOCIIndex, nil)
	case err != nil:
		return err
	case a.MediaType != oci.MediaTypeOCIIndex:
		return badListing(x.Repo, fmt.Errorf("tag %s is a %s", name, a.MediaType))
	}
	x.Source = a.source
	if x.Q.ArtifactType == "" {
		return x.SendList(a.Raw, oci.MediaTypeOCIIndex, nil)
	}
	list, err := ofArtifactType(a.Raw, x.Q.ArtifactType)
	if err != nil {
		return badListing(x.Repo, err)
	}
	x.W.Header().Set("OCI-Filters-Applied", "artifactType")
	return x.SendList(list, oci.MediaTypeOCIIndex, nil)
}

// ofArtifactType returns an index that keeps only the descriptors of one artifact type, unchanged.
func ofArtifactType(index []byte, artifactType string) ([]byte, error) {
	return oci.EditIndex(index, func(all []oci.IndexEntry) []oci.IndexEntry {
		return slices.DeleteFunc(all, func(e oci.IndexEntry) bool { return e.ArtifactType != artifactType })
	})
}

func badListing(r repository.Repo, cause error) error {
	return r.Up.BadAnswer("an invalid list", cause)
}

// withQueued adds the queued tags that sort after the tag last to the last page of the upstream's
// tags, up to n tags in all. A negative n means no bound.
func withQueued(queued, tags []string, last string, n int) []string {
	inOrder := slices.IsSorted(tags)
	for _, t := range queued {
		if t > last && !slices.Contains(tags, t) && (n < 0 || len(tags) < n) {
			tags = append(tags, t)
		}
	}
	if inOrder {
		slices.Sort(tags)
	}
	return tags
}
