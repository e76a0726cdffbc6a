package ecrtest

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// Dialect has the switches of a registry that is neither ECR nor Docker Hub. [Other] returns the
// quirks of such a registry. Each switch is a way in which some registries depart from the
// specification or from other registries. Its comment says which registry does so, and where and
// when that was reported. If the date of a report is not known, the comment gives the date on which
// the report was read, after "read". The zero value is a registry that does none of this.
type Dialect struct {
	Pages
	Redirects
	Tokens
	Heads

	// Challenges.

	// Private lists hidden repositories. The entry "repository" hides that repository from anonymous
	// clients, and "user:repository" hides it from that user. The refusal is a challenge, unless Open
	// or TokenRefusal says otherwise.
	Private []string
	// Basic asks for a name and password of [HubOptions].Users in place of a token (registries behind
	// nginx).
	Basic bool
	// BasicFirst offers Basic in a header line before the line of Bearer, although the registry does
	// not accept Basic (prowler#12691, 2026-09).
	BasicFirst bool
	// OneLine offers Basic and Bearer in one header line (prowler#12691, 2026-09).
	OneLine bool
	// Open lets anonymous clients read from a registry with Basic. For them, Private repositories do
	// not exist, and only /v2/ and writes get a challenge (Artifactory, Nexus: moby#24129, read
	// 2026-11).
	Open bool

	// Referrers.

	// ReferrersStatus, if not 0, is the answer to every request for referrers: 406 at Artifactory
	// (go-containerregistry#1962, 2024-06). With 200, the answer is a page in HTML.
	ReferrersStatus int
	// DigestTags treats the tag sha256-<hex> as the digest (registry.gitlab.com: oras-go#1396,
	// 2026-09).
	DigestTags bool

	// Compression.

	// Compress compresses answers whose Content-Type contains "json", unless the request forbids
	// compression (registry.access.redhat.com, quay#1310, 2022-05). CompressAlways also compresses
	// answers to requests that forbid compression, except blobs.
	Compress, CompressAlways bool

	// Clocks.

	// ClockAhead is how far the registry's clock is ahead of the client's clock (no report about a
	// registry; boot2docker#86 is about a client, read 2026-11).
	ClockAhead time.Duration
}

// Pages are the switches of a Dialect about pages of lists.
type Pages struct {
	// TagCursor is the name of the query parameter that replaces "last" in lists of tags (Quay:
	// next_page, docker_registry2#56, 2021-06). Its values are opaque.
	TagCursor string
	// NoPages sends all tags at once, whichever page the client requests (no report).
	NoPages bool
}

// Redirects are the switches of a Dialect about redirects and addresses.
type Redirects struct {
	// SignedForGet redirects requests for manifests and blobs to URLs that are signed for GET. It also
	// does so for HEAD, and the object store then refuses the HEAD (GitLab: moby#50065, 2026-08).
	SignedForGet bool
	// RedirectStatus, if not 0, is the status of redirects to the object store in place of 307 (the
	// specification names none; some registries send 302, 303 or 308).
	RedirectStatus int
	// Absolute writes locations and links as URLs (distribution#2927, read 2026-11).
	Absolute bool
	// ObjectsHere puts the object store below /storage/ on the registry's own host. The store refuses
	// requests with an Authorization header (MinIO behind the same load balancer: moby#50065, read
	// 2026-11).
	ObjectsHere bool
	// PlainLocation writes http in the URLs of ObjectsHere, although clients use TLS
	// (distribution#123, read 2026-11).
	PlainLocation bool
	// Elsewhere, if not empty, is the base URL of another registry to which the server redirects all
	// reads below /v2/ (a proxy before Nexus: moby#45333, 2023-04).
	Elsewhere string
	// Path, if not empty, is the path in front of /v2/, such as "/artifactory/api/docker/hub"
	// (Artifactory and Harbor: bottlerocket#1888, 2022-01). PathUnknown leaves Path out of locations,
	// as a registry may do that does not know below which path its proxy serves it (no report).
	Path        string
	PathUnknown bool
}

// Tokens are the switches of a Dialect about tokens.
type Tokens struct {
	// TokenRefusal, if not 0, is the status with which the token endpoint refuses a scope without push
	// for a repository that does not exist or is private (ghcr.io: 403, coolify#5575, 2025-04, and
	// 401, tunnel-client#75, read 2026-11).
	TokenRefusal int
	// TokenRedirect, if not 0, is the status with which the realm redirects to another path (Gitea and
	// Harbor behind a proxy that terminates TLS: dockhand#1428 and moby#38662, read 2026-11).
	TokenRedirect int
	// LooseTokens sends tokens with status 201, and expires_in as a string (no registry is known to do
	// both; clients accept any 2xx).
	LooseTokens bool
	// BareTokens sends a token under the name access_token, without its life (as ECR Public, whose
	// tokens expire after an hour: oras-go#1227, 2026-06).
	BareTokens bool
	// EndedToken, if not 0, is the status with which the registry refuses an expired token, without a
	// challenge (ECR Public: 400, oras-go#1227, 2026-06; 403, kpm#698, 2026-02).
	EndedToken int
	// BaseScope is the scope that the challenge of /v2/ names, if not empty. Tokens are then valid
	// only for the repositories in their scopes (no report).
	BaseScope string
}

// Heads are the switches of a Dialect about HEAD and about digests in headers.
type Heads struct {
	// HeadStatus, if not 0, is the answer to every HEAD of a manifest (Nexus: 404, registry-cli#14,
	// 2017-03, and diun#1614, 2026-02; others 403, containerd#6684, read 2026-11).
	HeadStatus int
	// NoDigests leaves Docker-Content-Digest out of answers to GET and HEAD of manifests (quay#1310,
	// 2022-05).
	NoDigests bool
	// BlobHeadStatus, if not 0, is the answer to every HEAD of a blob (ECR Public: 401,
	// containers-roadmap#2671, 2025-09; other statuses: no report, by analogy with HeadStatus).
	BlobHeadStatus int
}

// [Server.below] returns a handler that serves the registry at Dialect.Path.
func (s *Server) below(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := s.Dialect().Path
		if path != "" && !strings.HasPrefix(r.URL.Path, path+"/") {
			writeRegistryError(w, nowhere())
			return
		}
		http.StripPrefix(path, next).ServeHTTP(w, r)
	})
}

// locationPath returns the path that locations begin with.
func (s *Server) locationPath() string {
	d := s.Dialect()
	if d.PathUnknown {
		return ""
	}
	return d.Path
}

// storagePath is the path below which ObjectsHere serves the objects.
const storagePath = "/storage/"

// objectsURL returns the base of the signed URLs in the answer to a request.
func (s *Server) objectsURL(r *http.Request) string {
	d := s.Dialect()
	switch {
	case !d.ObjectsHere:
		return strings.TrimSuffix(s.opts.ObjectsURL, "/")
	case r.TLS == nil || d.PlainLocation:
		return "http://" + r.Host + strings.TrimSuffix(storagePath, "/")
	}
	return "https://" + r.Host + strings.TrimSuffix(storagePath, "/")
}

// divert serves the requests that are not for this registry itself, and reports whether it has
// served the request.
func (s *Server) divert(w http.ResponseWriter, r *http.Request, k Kind) (bool, error) {
	d := s.Dialect()
	switch {
	case d.ObjectsHere && strings.HasPrefix(r.URL.Path, storagePath):
		if r.Header.Get("Authorization") != "" {
			return true, refuse(http.StatusBadRequest, "UNSUPPORTED", "Only one auth mechanism allowed")
		}
		return true, s.serveObject(w, r)
	case d.Elsewhere != "" && k != KindToken && !k.writes():
		http.Redirect(w, r, d.Elsewhere+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return true, nil
	}
	return false, nil
}

// Dialect returns the dialect in force.
func (s *Server) Dialect() Dialect { return *s.dialect.Load() }

// SetDialect sets the dialect for later requests.
func (s *Server) SetDialect(d Dialect) { s.dialect.Store(&d) }

// redirectManifest answers with the URL of an object that has the manifest.
func (s *Server) redirectManifest(x *exchange, repo *repository, doc *document) error {
	l := layer{digest: doc.digest, size: int64(len(doc.raw)), object: doc.digest.Encoded(), media: doc.media}
	if err := os.WriteFile(s.blobPath(l.digest), doc.raw, 0o600); err != nil {
		return fmt.Errorf("write object: %w", err)
	}
	s.mu.Lock()
	s.objects[l.object] = &l
	s.mu.Unlock()
	s.redirect(x, repo, l)
	return nil
}

func (s *Server) redirect(x *exchange, repo *repository, l layer) {
	h := x.w.Header()
	h.Set("Location", s.signURL(s.objectsURL(x.r), x.reg, repo, l))
	h.Set("Content-Length", "0")
	x.w.WriteHeader(orDefault(s.Dialect().RedirectStatus, http.StatusTemporaryRedirect))
}

// hides reports whether Dialect.Private hides a repository from a user. For anonymous clients, user
// is empty.
func (s *Server) hides(user, repo string) bool {
	if user != "" {
		repo = user + ":" + repo
	}
	return slices.Contains(s.Dialect().Private, repo)
}

// authenticateUser authenticates a request by name and password.
func (s *Server) authenticateUser(r *http.Request, c call) (*token, error) {
	user, password, given := r.BasicAuth()
	if given && !s.opts.Hub.knows(user, password) {
		return nil, challengeUser()
	}
	open := s.Dialect().Open
	switch {
	case given && s.hides(user, c.Repo):
		return nil, challengeUser()
	case given:
		return &token{principal: user, push: true}, nil
	case !open || c.Kind == KindBase || c.Kind.writes():
		return nil, challengeUser()
	case s.hides("", c.Repo):
		return nil, refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "The named manifest is not known to the registry.")
	}
	return &token{}, nil
}

func challengeUser() *wireError {
	e := refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	e.Header = http.Header{"Www-Authenticate": {`Basic realm="registry"`}}
	return e
}

// challenges returns the lines of the challenge header: the given Bearer challenge, and also Basic
// if the dialect offers it.
func (s *Server) challenges(bearer string) []string {
	switch d := s.Dialect(); {
	case d.BasicFirst:
		return []string{`Basic realm="registry"`, bearer}
	case d.OneLine:
		return []string{`Basic realm="registry", ` + bearer}
	}
	return []string{bearer}
}

// redirectToken redirects a token request if the dialect says so, and reports whether it did.
func (s *Server) redirectToken(w http.ResponseWriter, r *http.Request) bool {
	status := s.Dialect().TokenRedirect
	if status == 0 || r.URL.Path != "/token" {
		return false
	}
	http.Redirect(w, r, s.Dialect().Path+"/token/?"+r.URL.RawQuery, status)
	return true
}

// refuseScopes returns the refusal of the first scope that Dialect.TokenRefusal refuses to a user.
func (s *Server) refuseScopes(user string, scopes []string) error {
	status := s.Dialect().TokenRefusal
	if status == 0 {
		return nil
	}
	for _, scope := range scopes {
		parts := strings.Split(scope, ":")
		if len(parts) != 3 || parts[0] != "repository" || strings.Contains(parts[2], "push") {
			continue
		}
		if s.hides(user, parts[1]) || !s.hasRepository(s.defaultRegistry(), parts[1]) {
			return refuse(status, "DENIED", "requested access to the resource is denied")
		}
	}
	return nil
}

// compressing compresses an answer if its Content-Type contains "json".
type compressing struct {
	http.ResponseWriter
	r *http.Request
	// zip is nil before the header is written, and for an answer that is not compressed.
	zip *gzip.Writer
}

// compress returns w, or a writer that compresses the answer as the dialect says, and a function
// that ends the answer.
func (s *Server) compress(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, func()) {
	d := s.Dialect()
	accepted := r.Header.Get("Accept-Encoding")
	forbidden := accepted != "" && !strings.Contains(accepted, "gzip")
	if !d.Compress && !d.CompressAlways || forbidden && (!d.CompressAlways || strings.Contains(r.URL.Path, "/blobs/")) {
		return w, func() {}
	}
	c := &compressing{ResponseWriter: w, r: r}
	return c, func() {
		if c.zip != nil {
			_ = c.zip.Close() // fails only if the client is gone
		}
	}
}

func (c *compressing) WriteHeader(status int) {
	h := c.Header()
	if strings.Contains(h.Get("Content-Type"), "json") && status != http.StatusNoContent && h.Get("Content-Length") != "0" {
		h.Set("Content-Encoding", "gzip")
		h.Del("Content-Length")
		if c.r.Method != http.MethodHead {
			c.zip = gzip.NewWriter(c.ResponseWriter)
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *compressing) Write(p []byte) (int, error) {
	if c.zip == nil {
		return c.ResponseWriter.Write(p)
	}
	return c.zip.Write(p)
}

// Unwrap is for http.ResponseController.
func (c *compressing) Unwrap() http.ResponseWriter { return c.ResponseWriter }
