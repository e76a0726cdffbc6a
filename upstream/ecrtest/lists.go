package ecrtest

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// cursor is the content of the query parameter "last" if it is opaque: the start and size of the
// next page.
type cursor struct {
	After string `json:"after"`
	N     int    `json:"n"`
	Pad   string `json:"pad"` // padding, because ECR's tokens are long
}

func (c cursor) String() string {
	c.Pad = base64.StdEncoding.EncodeToString(randomBytes(96))
	b, _ := json.Marshal(c)
	return base64.URLEncoding.EncodeToString(b)
}

// orderKey returns the key by which the names in a list are sorted. With OpaquePages, the order has
// no meaning.
func (s *Server) orderKey(name string) string {
	if !s.opts.Quirks.OpaquePages {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8]) + name
}

// page returns the names on the page that the request asks for, and adds the Link to the next page.
func (s *Server) page(x *exchange, names []string, path string) ([]string, error) {
	after, n, err := s.pageStart(x)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(s.orderKey(a), s.orderKey(b)) })
	names = slices.DeleteFunc(names, func(t string) bool { return after != "" && s.orderKey(t) <= after })
	if len(names) <= n {
		return names, nil
	}
	names = names[:n]
	last := names[n-1]
	q := url.Values{}
	if name := s.Dialect().TagCursor; name != "" {
		q.Set(name, base64.URLEncoding.EncodeToString([]byte(last)))
		q.Set("n", strconv.Itoa(n))
	} else if s.opts.Quirks.OpaquePages {
		q.Set("last", cursor{After: s.orderKey(last), N: n}.String())
	} else {
		q.Set("last", last)
		q.Set("n", strconv.Itoa(n))
	}
	x.w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, s.location(x, path, q)))
	return names, nil
}

// pageStart parses the query parameters "n" and "last", or the parameter that replaces "last" in
// the dialect. At ECR, n is bounded, and last is opaque.
func (s *Server) pageStart(x *exchange) (after string, n int, err error) {
	q := x.r.URL.Query()
	quirks := s.opts.Quirks
	n = quirks.PageSize
	if name := s.Dialect().TagCursor; name != "" {
		raw, err := base64.URLEncoding.DecodeString(q.Get(name))
		if err != nil {
			return "", 0, invalidParameter(x.sw.PageSizeStatus, name, "Invalid token")
		}
		after = string(raw)
	} else if last := q.Get("last"); last != "" && quirks.OpaquePages {
		var c cursor
		raw, err := base64.URLEncoding.DecodeString(last)
		if err != nil || json.Unmarshal(raw, &c) != nil || c.N <= 0 {
			return "", 0, invalidParameter(x.sw.PageSizeStatus, "nextToken", "Invalid token")
		}
		after, n = c.After, c.N
	} else {
		after = last
	}
	if v := q.Get("n"); v != "" {
		n, err = strconv.Atoi(v)
		if err != nil || n < 1 {
			return "", 0, invalidParameter(x.sw.PageSizeStatus, "maxResults", "Member must have value greater than or equal to 1")
		}
	}
	if quirks.MaxPageSize > 0 && n > quirks.MaxPageSize {
		return "", 0, invalidParameter(x.sw.PageSizeStatus, "maxResults", fmt.Sprintf("Member must have value less than or equal to %d", quirks.MaxPageSize))
	}
	return after, n, nil
}

func (s *Server) listTags(x *exchange) error {
	repo, err := s.repository(x)
	if err != nil {
		return err
	}
	s.mu.Lock()
	names := make([]string, 0, len(repo.tags))
	for t := range repo.tags {
		names = append(names, t)
	}
	s.mu.Unlock()
	if s.Dialect().NoPages {
		slices.Sort(names)
	} else if names, err = s.page(x, names, "/v2/"+x.Repo+"/tags/list"); err != nil {
		return err
	}
	return writeJSON(x.w, http.StatusOK, s.opts.Quirks.ListType, map[string]any{"name": x.Repo, "tags": names})
}

func (s *Server) listCatalog(x *exchange) error {
	s.mu.Lock()
	names := make([]string, 0, len(x.reg.repos))
	for r := range x.reg.repos {
		if _, ok := x.reg.find(r, s.nowLocked()); ok {
			names = append(names, r)
		}
	}
	s.mu.Unlock()
	cut, err := s.page(x, slices.Clone(names), "/v2/_catalog")
	if err != nil {
		return err
	}
	if !x.sw.CatalogPages && s.opts.Quirks.OpaquePages {
		x.w.Header().Del("Link")
		slices.Sort(names)
		cut = names
	}
	return writeJSON(x.w, http.StatusOK, s.opts.Quirks.ListType, map[string]any{"repositories": cut})
}

// listReferrers serves the referrers API of OCI 1.1.
func (s *Server) listReferrers(x *exchange) error {
	switch status := s.Dialect().ReferrersStatus; status {
	case 0:
	case http.StatusOK:
		x.w.Header().Set("Content-Type", "text/html")
		_, err := x.w.Write([]byte("<html><body>Sign in</body></html>"))
		return err
	default:
		return refuse(status, "UNSUPPORTED", "")
	}
	repo, err := s.repository(x)
	if err != nil {
		return err
	}
	if x.Digest == "" {
		return digestInvalid(x.RawRef)
	}
	found := s.referrers(repo, x.Digest)
	if len(found) == 0 && x.sw.NoReferrersStatus == http.StatusNotFound {
		return nowhere()
	}
	h := x.w.Header()
	if want := x.r.URL.Query().Get("artifactType"); want != "" && x.sw.FiltersReferrers {
		found = slices.DeleteFunc(found, func(d v1.Descriptor) bool { return d.ArtifactType != want })
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	if size := x.sw.ReferrersPageSize; size > 0 {
		found = s.cutReferrers(x, found, size)
	}
	body := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: found}
	body.SchemaVersion = 2
	return writeJSON(x.w, http.StatusOK, v1.MediaTypeImageIndex, body)
}

func (s *Server) referrers(repo *repository, subject digest.Digest) []v1.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []v1.Descriptor{}
	for d, img := range repo.images {
		if img.doc.subject == subject && !img.archived { // the API ListImageReferrers lists only active referrers (ECR model)
			found = append(found, v1.Descriptor{MediaType: img.doc.media, Digest: d, Size: int64(len(img.doc.raw)),
				ArtifactType: img.doc.artifactType, Annotations: img.doc.annotations})
		}
	}
	slices.SortFunc(found, func(a, b v1.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return found
}

// cutReferrers returns the page after the digest in the query's "last", and adds the Link to the
// next page.
func (s *Server) cutReferrers(x *exchange, found []v1.Descriptor, size int) []v1.Descriptor {
	q := x.r.URL.Query()
	last := digest.Digest(q.Get("last"))
	found = slices.DeleteFunc(found, func(d v1.Descriptor) bool { return d.Digest <= last })
	if len(found) <= size {
		return found
	}
	found = found[:size]
	q.Set("last", found[size-1].Digest.String())
	x.w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, s.location(x, "/v2/"+x.Repo+"/referrers/"+x.Digest.String(), q)))
	return found
}
