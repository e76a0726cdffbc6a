package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"dray/upstream"
	"dray/upstream/oci"
)

// listTags passes a page of the upstream's tags on. Order and continuation are the
// upstream's (ECR's are opaque); the name and the link become the client's.
func (m *Mirror) listTags(x *exchange) error {
	query := url.Values{}
	if x.q.N >= 0 {
		query.Set("n", strconv.Itoa(x.q.N))
	}
	if x.q.Last != "" {
		query.Set("last", x.q.Last)
	}
	ctx := x.hurry(lookFor)
	page, err := x.up.Lister.Tags(ctx, x.up.remote(x.target.Repo), query)
	if err != nil && len(m.queue.Tags(x.up.Name, x.target.Repo)) > 0 {
		page, err = upstream.Page{Body: []byte("{}")}, nil // what is on its way is all that can be told
	}
	if err != nil {
		return err
	}
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(page.Body, &list); err != nil {
		return badListing(x.up, err)
	}
	if len(page.Next) == 0 {
		list.Tags = m.withQueued(x.up, x.target.Repo, list.Tags, x.q.Last, x.q.N)
	}
	if list.Tags == nil { // some registries send null, which some clients cannot read
		list.Tags = []string{}
	}
	list.Name = x.q.Repo
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return x.sendList(body, "application/json; charset=utf-8", page.Next)
}

// listReferrers passes the referrers of a manifest on, from the tag that stands in
// for the call at registries without it (spec, "Listing Referrers").
func (m *Mirror) listReferrers(x *exchange) error {
	query, err := url.ParseQuery(x.q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	if x.q.ArtifactType != "" {
		query.Set("artifactType", x.q.ArtifactType)
	}
	ctx := x.hurry(lookFor)
	page, err := x.up.Lister.Referrers(ctx, x.up.remote(x.target.Repo), x.q.Ref.Digest, query)
	if errors.Is(err, upstream.ErrReferrersUnsupported) {
		return m.referrersByTag(x)
	}
	if err != nil {
		return err
	}
	if page.FiltersApplied != "" {
		x.w.Header().Set("OCI-Filters-Applied", page.FiltersApplied)
	}
	return x.sendList(page.Body, oci.MediaTypeOCIIndex, page.Next)
}

func (m *Mirror) referrersByTag(x *exchange) error {
	tag := upstream.FallbackTag(x.q.Ref.Digest)
	accept := []string{oci.MediaTypeOCIIndex}
	a, err := m.queued(x.up, x.target.Repo, oci.Reference{Tag: tag}, accept), error(nil)
	if a == nil {
		a, err = m.byTag(x.r.Context(), x.up, x.target.Repo, tag, accept)
	}
	switch {
	case errors.Is(err, oci.ErrManifestUnknown):
		return x.sendList([]byte(`{"schemaVersion":2,"mediaType":"`+oci.MediaTypeOCIIndex+`","manifests":[]}`), oci.MediaTypeOCIIndex, nil)
	case err != nil:
		return err
	case a.mediaType != oci.MediaTypeOCIIndex:
		return badListing(x.up, fmt.Errorf("tag %s is a %s", tag, a.mediaType))
	}
	if x.q.ArtifactType == "" {
		return x.sendList(a.raw, oci.MediaTypeOCIIndex, nil)
	}
	list, err := ofArtifactType(a.raw, x.q.ArtifactType)
	if err != nil {
		return badListing(x.up, err)
	}
	x.w.Header().Set("OCI-Filters-Applied", "artifactType")
	return x.sendList(list, oci.MediaTypeOCIIndex, nil)
}

// ofArtifactType leaves the descriptors of one artifact type in an index, each as it stands there.
func ofArtifactType(index []byte, artifactType string) ([]byte, error) {
	return oci.EditIndex(index, func(all []oci.IndexEntry) []oci.IndexEntry {
		return slices.DeleteFunc(all, func(e oci.IndexEntry) bool { return e.ArtifactType != artifactType })
	})
}

func badListing(up *Upstream, cause error) error {
	return badAnswer(up, "a listing that cannot be read", cause)
}

// badAnswer is a 502 that says what was wrong.
func badAnswer(up *Upstream, what string, cause error) error {
	e := oci.ErrUnknown.With("%s sent %s", up.Registry, what).Because(cause)
	e.Status = http.StatusBadGateway
	return e
}

// sendList sends one page, with the link to the next one as a path that the client
// can follow.
func (x *exchange) sendList(body []byte, mediaType string, next url.Values) error {
	h := x.w.Header()
	if len(next) > 0 {
		if x.q.Namespace != "" {
			next.Set("ns", x.q.Namespace)
		}
		h.Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", x.q.Path(), next.Encode()))
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := x.w.Write(body)
	return err
}
