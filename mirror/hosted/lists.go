package hosted

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// pageSize is the number of entries in a page of a list. For tags, a client can request another
// number.
const pageSize = 1000

// Tags implements upstream.Lister. The tags are in lexical order (see compareTags), and the tag in
// the query parameter "last" need not exist (spec 1.1, "Listing Tags").
func (s *Store) Tags(_ context.Context, at upstream.Repo, query url.Values) (upstream.Page, error) {
	all, err := s.contents.tagNames(at.Name)
	if err != nil {
		return upstream.Page{}, err
	}
	if last := query.Get("last"); last != "" {
		at, found := slices.BinarySearchFunc(all, last, compareTags)
		if found {
			at++
		}
		all = all[at:]
	}
	n := pageSize
	if v := query.Get("n"); v != "" {
		if n, err = strconv.Atoi(v); err != nil || n < 0 {
			return upstream.Page{}, oci.ErrPaginationInvalid.With("invalid number of results %q", v)
		}
	}
	var next url.Values
	if len(all) > n {
		if all = all[:n]; n > 0 {
			next = url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
		}
	}
	body, err := json.Marshal(map[string]any{"name": at.Name, "tags": all})
	return upstream.Page{Body: body, ContentType: "application/json", Next: next}, err
}

// Referrers implements upstream.Lister. The list is empty if nothing refers to the subject, even if
// the repository does not have the subject.
func (s *Store) Referrers(_ context.Context, at upstream.Repo, d digest.Digest, query url.Values) (upstream.Page, error) {
	all := s.contents.referrersOf(at.Name, d)
	p := upstream.Page{ContentType: oci.MediaTypeOCIIndex}
	if want := query.Get("artifactType"); want != "" {
		all = slices.DeleteFunc(all, func(r oci.Descriptor) bool { return r.ArtifactType != want })
		p.FiltersApplied = "artifactType"
	}
	if last := query.Get("last"); last != "" {
		all = slices.DeleteFunc(all, func(r oci.Descriptor) bool { return r.Digest.String() <= last })
	}
	if len(all) > pageSize {
		all = all[:pageSize]
		p.Next = maps.Clone(query)
		p.Next.Set("last", all[pageSize-1].Digest.String())
	}
	var err error
	p.Body, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIIndex, "manifests": all})
	return p, err
}
