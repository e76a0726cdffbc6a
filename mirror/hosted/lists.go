package hosted

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// pageSize is the length of a page where the client gives none.
const pageSize = 1000

// Tags implements upstream.Lister, in lexical order; "last" is a tag, which need not exist (spec 1.1, "Listing Tags").
func (s *Store) Tags(_ context.Context, at upstream.Repo, query url.Values) (upstream.Page, error) {
	name := at.Name
	all, err := s.tags(name)
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
	body, err := json.Marshal(map[string]any{"name": name, "tags": all})
	return upstream.Page{Body: body, ContentType: "application/json", Next: next}, err
}

// compareTags is the order of the specification: alphanumeric, without regard to case; what differs by case alone is told
// apart all the same.
func compareTags(a, b string) int {
	if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func (s *Store) tags(name string) ([]string, error) {
	s.mu.Lock()
	r := s.repos[name]
	if r == nil {
		s.mu.Unlock()
		return nil, nameUnknown(name)
	}
	now := r.now
	s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(now.tags), compareTags), nil
}

// Referrers implements upstream.Lister. A subject that nothing refers to has an empty list, also one that is not here.
func (s *Store) Referrers(_ context.Context, at upstream.Repo, d digest.Digest, query url.Values) (upstream.Page, error) {
	name := at.Name
	all := s.referrers(name, d)
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

// referrers are sorted by digest, so that pages go on where they ended.
func (s *Store) referrers(name string, d digest.Digest) []oci.Descriptor {
	all := []oci.Descriptor{}
	r := s.lookup(name)
	if r == nil {
		return all
	}
	s.mu.Lock()
	now := r.now
	s.mu.Unlock()
	for self, m := range now.manifests {
		if m.subject == d {
			all = append(all, oci.Descriptor{MediaType: m.mediaType, Digest: self, Size: m.size, ArtifactType: m.artifactType, Annotations: m.annotations})
		}
	}
	slices.SortFunc(all, func(a, b oci.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return all
}
