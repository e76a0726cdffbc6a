package oci

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v2 "github.com/distribution/distribution/v3/registry/api/v2"
	"github.com/opencontainers/go-digest"
)

// Kind is the kind of resource that a request is about. The values are the route names of
// distribution v3, and one more for the referrers of spec 1.1.
type Kind string

// The kinds, each with its path below /v2/.
const (
	KindBase      Kind = v2.RouteNameBase            // ""
	KindManifest  Kind = v2.RouteNameManifest        // <repo>/manifests/<reference>
	KindTags      Kind = v2.RouteNameTags            // <repo>/tags/list
	KindBlob      Kind = v2.RouteNameBlob            // <repo>/blobs/<digest>
	KindUploads   Kind = v2.RouteNameBlobUpload      // <repo>/blobs/uploads/
	KindUpload    Kind = v2.RouteNameBlobUploadChunk // <repo>/blobs/uploads/<id>
	KindCatalog   Kind = v2.RouteNameCatalog         // _catalog
	KindReferrers Kind = "referrers"                 // <repo>/referrers/<digest>
)

// MaxPage is the largest value of ?n= that dray uses. Parse reduces larger values to it. ECR
// refuses more than 1000.
const MaxPage = 1000

// Request is a parsed request of the protocol. Fields that a kind does not use are zero, except N,
// which is -1.
type Request struct {
	Method string
	Kind   Kind
	// Prefix is the path before /v2/, without slashes at its ends. Docker and containerd put the
	// path of a mirror's URL there.
	Prefix string
	// Repo is the repository name as the client wrote it. It may begin with the path of a mirror,
	// because BuildKit and Podman put that path there.
	Repo string
	// Ref is the reference of the manifest, the digest of the blob or subject, or the digest that
	// closes an upload (?digest=).
	Ref Reference
	// Tags are the tags for a manifest that is pushed by digest (?tag=, which may be repeated; see
	// "Pushing Manifests" in a specification later than 1.1).
	Tags []string
	// Upload is the id of an upload session, as dray issued it.
	Upload string
	// Mount and From are the blob to mount, and the repository to mount it from. From may be empty.
	Mount digest.Digest
	From  string
	// N and Last are the parameters n and last, by which clients page through tags and the catalog.
	// N is -1 if n was not given. Last is opaque: with ECR it is not a tag.
	N    int
	Last string
	// ArtifactTypes filters referrers; containerd asks for several types at once.
	ArtifactTypes []string
	// Page has the other query parameters of a request for a list. They are opaque, because registries
	// have page cursors of any name (Quay: next_page, docker_registry2#56).
	Page string
	// Namespace is ?ns=, the registry (host or host:port) that a containerd client asks for.
	Namespace string
}

// Parse parses a request. The error is ErrNameInvalid, ErrTagInvalid, ErrDigestInvalid,
// ErrPaginationInvalid, ErrBlobUploadUnknown (no session of dray can have this id), ErrUnsupported
// (the resource does not have the method, or the query cannot be parsed) or ErrNameUnknown (no such
// resource). Parse refuses dot segments in a path, and every escape except the escape of a colon.
// It never panics.
func Parse(r *http.Request) (Request, error) {
	q := Request{Method: r.Method, N: -1}
	prefix, rest, err := splitPath(r.URL)
	if err != nil {
		return q, err
	}
	q.Prefix = prefix
	if err := q.parseRest(rest); err != nil {
		return q, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, ErrUnsupported.With("invalid query string").Because(err).WithStatus(http.StatusBadRequest)
	}
	if err := q.parseQuery(query); err != nil {
		return q, err
	}
	return q, q.checkMethod()
}

// splitPath splits the escaped path at its first "/v2" segment.
func splitPath(u *url.URL) (prefix, rest string, err error) {
	escaped := u.EscapedPath()
	p := escaped
	if strings.Contains(p, "%") {
		p = colons.Replace(p)
	}
	if len(escaped) > 4096 || strings.ContainsAny(p, "%\\") {
		return "", "", ErrNameInvalid.With("invalid path %q", clip(escaped))
	}
	for seg := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if seg == "." || seg == ".." {
			return "", "", ErrNameInvalid.With("invalid path %q", clip(p))
		}
	}
	switch before, after, ok := strings.Cut(p+"/", "/v2/"); {
	case !ok:
		return "", "", ErrNameUnknown.With("unknown path: paths of the registry API begin with /v2/")
	case strings.Contains(before, "//"):
		return "", "", ErrNameInvalid.With("invalid path %q", clip(p))
	default:
		return strings.Trim(before, "/"), strings.TrimSuffix(after, "/"), nil
	}
}

// colons decodes the only accepted escape: Docker sends the colon of a digest escaped.
var colons = strings.NewReplacer("%3A", ":", "%3a", ":")

// parseRest parses the path after /v2/ from its end, because names contain slashes.
func (q *Request) parseRest(rest string) error {
	switch rest {
	case "":
		q.Kind = KindBase
		return nil
	case "_catalog":
		q.Kind = KindCatalog
		return nil
	}
	seg := strings.Split(rest, "/")
	n := len(seg)
	var repo []string
	switch {
	case n >= 4 && seg[n-3] == "blobs" && seg[n-2] == "uploads":
		repo, q.Upload = seg[:n-3], seg[n-1]
		q.Kind = KindUpload
		if q.Upload == "" {
			q.Kind = KindUploads
		}
	case n >= 3 && seg[n-2] == "blobs" && seg[n-1] == "uploads":
		repo, q.Kind = seg[:n-2], KindUploads
	case n >= 3 && seg[n-2] == "manifests":
		repo, q.Kind = seg[:n-2], KindManifest
	case n >= 3 && seg[n-2] == "blobs":
		repo, q.Kind = seg[:n-2], KindBlob
	case n >= 3 && seg[n-2] == "referrers":
		repo, q.Kind = seg[:n-2], KindReferrers
	case n >= 3 && seg[n-2] == "tags" && seg[n-1] == "list":
		repo, q.Kind = seg[:n-2], KindTags
	default:
		return ErrNameUnknown.With("unknown path %q", clip("/v2/"+rest))
	}
	q.Repo = strings.Join(repo, "/")
	if err := CheckRepo(q.Repo); err != nil {
		return err
	}
	return q.parseLast(seg[n-1])
}

// parseLast parses the last path element if it is a reference, a digest or the id of an upload.
func (q *Request) parseLast(last string) (err error) {
	switch q.Kind {
	case KindManifest:
		q.Ref, err = ParseReference(last)
	case KindBlob, KindReferrers:
		q.Ref.Digest, err = ParseDigest(last)
	case KindUpload:
		if !uploadID.MatchString(last) {
			err = ErrBlobUploadUnknown.With("unknown upload %q", clip(last))
		}
	}
	return err
}

// uploadID matches the ids that dray issues.
var uploadID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// parseQuery parses the parameters of the kind. If the request is for a list, parseQuery keeps the
// other parameters in Page. In any other request it ignores the other parameters, because proxies
// and clients add parameters of their own.
func (q *Request) parseQuery(v url.Values) (err error) {
	q.Namespace = v.Get("ns")
	switch q.Kind {
	case KindManifest:
		err = q.parseTags(v["tag"])
	case KindUploads, KindUpload:
		err = q.parseUploadQuery(v)
	case KindTags, KindCatalog:
		q.Last = v.Get("last")
		q.N, err = pageSize(v)
		q.Page = rest(v, "ns", "last", "n")
	case KindReferrers:
		q.ArtifactTypes = slices.DeleteFunc(v["artifactType"], func(t string) bool { return t == "" })
		q.Page = rest(v, "ns", "artifactType")
	}
	return err
}

// The function rest encodes all parameters except those with the given names.
func rest(v url.Values, named ...string) string {
	for _, k := range named {
		v.Del(k)
	}
	return v.Encode()
}

// maxTags bounds the tags pushed with one manifest. The specification asks for at least 10.
const maxTags = 32

// parseTags parses ?tag=, which counts only in a push by digest.
func (q *Request) parseTags(tags []string) error {
	if q.Method != http.MethodPut || q.Ref.Digest == "" || len(tags) == 0 {
		return nil
	}
	if len(tags) > maxTags {
		return ErrTagInvalid.With("%d tags for one manifest, and the limit is %d", len(tags), maxTags).WithStatus(http.StatusRequestURITooLong)
	}
	for _, t := range tags {
		if !tagPattern.MatchString(t) {
			return ErrTagInvalid.With("invalid tag %q", clip(t))
		}
		if !slices.Contains(q.Tags, t) {
			q.Tags = append(q.Tags, t)
		}
	}
	return nil
}

func (q *Request) parseUploadQuery(v url.Values) (err error) {
	if s := v.Get("digest"); s != "" {
		if q.Ref.Digest, err = ParseDigest(s); err != nil {
			return err
		}
	}
	if s := v.Get("digest-algorithm"); s != "" && q.Kind == KindUploads && digest.Algorithm(s) != digest.SHA256 && digest.Algorithm(s) != digest.SHA512 {
		// If the algorithm is supported, dray ignores the parameter, because the digest that closes
		// the upload may use another supported algorithm.
		return ErrDigestInvalid.With("unsupported digest algorithm %q", clip(s))
	}
	if s := v.Get("mount"); s != "" && q.Kind == KindUploads {
		if q.Mount, err = ParseDigest(s); err != nil {
			return err
		}
		// Some clients name a repository of another registry, whose name may be invalid here. An
		// invalid name counts as missing and is no error, so the client can still upload the blob.
		if from := v.Get("from"); CheckRepo(from) == nil {
			q.From = from
		}
	}
	return nil
}

// pageSize parses ?n=, and returns -1 if it is missing. Zero is allowed (an empty page, spec
// "Listing Tags").
func pageSize(v url.Values) (int, error) {
	s := v.Get("n")
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return -1, ErrPaginationInvalid.With("invalid number of results %q", clip(s))
	}
	return min(n, MaxPage), nil
}

// methods lists the methods of each kind.
var methods = map[Kind][]string{
	KindBase:      {"GET", "HEAD"},
	KindManifest:  {"GET", "HEAD", "PUT", "DELETE"},
	KindTags:      {"GET", "HEAD"},
	KindBlob:      {"GET", "HEAD", "DELETE"},
	KindUploads:   {"POST"},
	KindUpload:    {"GET", "PATCH", "PUT", "DELETE"},
	KindCatalog:   {"GET", "HEAD"},
	KindReferrers: {"GET", "HEAD"},
}

func (q *Request) checkMethod() error {
	if !slices.Contains(methods[q.Kind], q.Method) {
		return ErrUnsupported.With("the %s resource does not support the method %q", q.Kind, clip(q.Method))
	}
	return nil
}

// Write reports whether the request is part of a write. Every request about an upload session
// counts, even GET.
func (q Request) Write() bool {
	return q.Method != http.MethodGet && q.Method != http.MethodHead || q.Kind == KindUpload
}

// Deletes reports whether the request deletes content. Cancelling an upload does not count.
func (q Request) Deletes() bool { return q.Method == http.MethodDelete && q.Kind != KindUpload }

// Path returns the path of the request. Parse is its inverse.
func (q Request) Path() string {
	p := "/v2/"
	if q.Prefix != "" {
		p = "/" + q.Prefix + p
	}
	switch q.Kind {
	case KindManifest:
		p += q.Repo + "/manifests/" + q.Ref.String()
	case KindTags:
		p += q.Repo + "/tags/list"
	case KindBlob:
		p += q.Repo + "/blobs/" + q.Ref.Digest.String()
	case KindUploads:
		p += q.Repo + "/blobs/uploads/"
	case KindUpload:
		p += q.Repo + "/blobs/uploads/" + q.Upload
	case KindCatalog:
		p += "_catalog"
	case KindReferrers:
		p += q.Repo + "/referrers/" + q.Ref.Digest.String()
	}
	return p
}

// URL returns the path and query of the request. Parse is its inverse.
func (q Request) URL() string {
	v := url.Values{}
	set := func(k, s string) {
		if s != "" {
			v.Set(k, s)
		}
	}
	set("ns", q.Namespace)
	switch q.Kind {
	case KindManifest:
		if len(q.Tags) > 0 {
			v["tag"] = q.Tags
		}
	case KindUploads, KindUpload:
		set("digest", q.Ref.Digest.String())
		set("mount", q.Mount.String())
		set("from", q.From)
	case KindTags, KindCatalog:
		if q.N >= 0 {
			v.Set("n", strconv.Itoa(q.N))
		}
		set("last", q.Last)
	case KindReferrers:
		if len(q.ArtifactTypes) > 0 {
			v["artifactType"] = q.ArtifactTypes
		}
	}
	if page, err := url.ParseQuery(q.Page); err == nil {
		maps.Copy(v, page)
	}
	if len(v) == 0 {
		return q.Path()
	}
	return q.Path() + "?" + v.Encode()
}
