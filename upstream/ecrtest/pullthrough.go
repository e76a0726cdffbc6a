package ecrtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullThroughEvery is how long the server serves a tag of a pull-through rule before it asks the
// upstream again.
const pullThroughEvery = 24 * time.Hour

// pullThrough imports the manifest that a request names. It imports the manifest from the upstream
// of the pull-through rule that matches the repository. If the upstream fails, the server has only
// the images that it imported before.
func (s *Server) pullThrough(x *exchange) {
	rule, ok := s.rule(x.Repo)
	if !ok || s.forbids(x.who.principal, "ecr:BatchImportUpstreamImage", x.reg.arn(x.Repo)) || !s.needsLookup(x) {
		return
	}
	if !s.hasRepository(x.reg, x.Repo) && s.forbids(x.who.principal, "ecr:CreateRepository", x.reg.arn(x.Repo)) {
		return
	}
	f := s.importer(x, rule)
	if err := f.manifest(x.r.Context(), orDefault(x.Tag, x.Digest.String()), x.Tag); err != nil {
		s.opts.Logger.Warn("pull through failed", "repository", x.Repo, "error", err)
	}
}

func (s *Server) importer(x *exchange, rule PullThroughRule) *importer {
	return &importer{server: s, reg: x.reg, local: x.Repo, base: strings.TrimSuffix(rule.Upstream, "/"), name: strings.TrimPrefix(x.Repo, rule.Prefix+"/")}
}

func (s *Server) rule(repo string) (PullThroughRule, bool) {
	for _, r := range s.opts.PullThrough {
		if strings.HasPrefix(repo, r.Prefix+"/") {
			return r, true
		}
	}
	return PullThroughRule{}, false
}

// needsLookup reports whether the server must ask the upstream, and records the time of the lookup.
// With PullThroughDigestMissing, it records the first pull of a digest, too, but returns false.
func (s *Server) needsLookup(x *exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := x.reg.arn(x.Repo) + ":" + orDefault(x.Tag, x.Digest.String())
	last, looked := s.looked[key]
	now := s.nowLocked()
	if r, ok := x.reg.repos[x.Repo]; ok {
		if _, held := r.find(x.Tag, x.Digest); held && (x.Tag == "" || now.Sub(last) < pullThroughEvery) {
			return false
		}
	}
	s.looked[key] = now
	return looked || x.Tag != "" || !x.sw.PullThroughDigestMissing
}

// importer copies images of one upstream repository. If the upstream demands a Bearer token, the
// importer gets one without credentials.
type importer struct {
	server *Server
	reg    *registry
	local  string
	base   string
	name   string
	token  string
	stay   bool // follow no redirects
}

// manifest imports a manifest with its blobs and children, and then the tag.
func (f *importer) manifest(ctx context.Context, ref, tag string) error {
	accept := strings.Join([]string{v1.MediaTypeImageIndex, mediaDockerList, v1.MediaTypeImageManifest, mediaDockerManifest}, ", ")
	resp, err := f.get(ctx, "manifests/"+ref, accept)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	_ = resp.Body.Close() // was read in full
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", ref, err)
	}
	doc, err := parseDocument(resp.Header.Get("Content-Type"), raw, strictness{})
	if err != nil {
		return fmt.Errorf("parse manifest %s: %w", ref, err)
	}
	s := f.server
	fresh := newRepository(f.local, newUUID(), s.now())
	fresh.pullThrough = true
	repo := s.createRepository(f.reg, fresh)
	for _, child := range doc.children {
		if err := f.manifest(ctx, child.String(), ""); err != nil {
			return err
		}
	}
	for _, b := range doc.blobs {
		if s.Switches().PullThroughRedirects && s.addRemote(repo, b, f.base+"/v2/"+f.name+"/blobs/"+b.Digest.String()) {
			continue
		}
		if err := f.blob(ctx, repo, b.Digest); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	repo.put(doc, tag, s.nowLocked())
	return nil
}

// addRemote adds a blob whose bytes are still at the upstream. It reports false if the repository
// has the blob already.
func (s *Server) addRemote(repo *repository, b blobRef, url string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if repo.layers[b.Digest] != nil {
		return false
	}
	repo.layers[b.Digest] = &layer{digest: b.Digest, size: b.Size, object: newUUID(), remote: url}
	return true
}

// getRemote serves the first GET of a blob that a pull-through rule has not cached yet. It
// redirects the client to the URL to which the upstream redirects, and caches the blob. If
// getRemote returns false and no error, the caller has to serve the blob from the cache.
func (s *Server) getRemote(x *exchange, repo *repository, l layer) (done bool, err error) {
	rule, ok := s.rule(x.Repo)
	if !ok {
		return false, x.reg.blobUnknown(x.Repo, l.digest)
	}
	f := s.importer(x, rule)
	at, err := f.place(x.r.Context(), l.digest)
	if err == nil {
		err = f.blob(x.r.Context(), repo, l.digest)
	}
	if err != nil {
		s.opts.Logger.Warn("pull through failed", "repository", x.Repo, "digest", l.digest, "error", err)
		return false, x.reg.blobUnknown(x.Repo, l.digest)
	}
	if at == "" {
		return false, nil
	}
	x.w.Header().Set("Location", at)
	x.w.Header().Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusTemporaryRedirect)
	return true, nil
}

func (f *importer) blob(ctx context.Context, repo *repository, d digest.Digest) error {
	f.server.mu.Lock()
	l, held := repo.layers[d]
	held = held && l.remote == ""
	f.server.mu.Unlock()
	if held {
		return nil
	}
	resp, err := f.get(ctx, "blobs/"+d.String(), "*/*")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = f.server.ingest(repo, d, func(w io.Writer) error { _, err := io.Copy(w, resp.Body); return err })
	return err
}

// place returns the URL to which the upstream redirects a GET of a blob, or "" if the upstream
// serves the blob itself.
func (f *importer) place(ctx context.Context, d digest.Digest) (string, error) {
	plain := *f
	plain.stay = true
	resp, err := plain.get(ctx, "blobs/"+d.String(), "*/*")
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close() // not needed
	f.token = plain.token
	if at, err := resp.Location(); err == nil {
		return at.String(), nil
	}
	return "", nil
}

// get sends a request to the upstream. After a challenge, it repeats the request with a token.
func (f *importer) get(ctx context.Context, path, accept string) (*http.Response, error) {
	client := *f.server.upstream
	if f.stay {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base+"/v2/"+f.name+"/"+path, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", accept)
		if f.token != "" {
			req.Header.Set("Authorization", "Bearer "+f.token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK || f.stay && resp.StatusCode/100 == 3 {
			return resp, nil
		}
		_ = resp.Body.Close() // not needed
		if resp.StatusCode != http.StatusUnauthorized {
			return nil, fmt.Errorf("get %s: status %d", path, resp.StatusCode)
		}
		if err := f.login(ctx, resp.Header.Get("Www-Authenticate")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("get %s: token refused", path)
}

var challengeParam = regexp.MustCompile(`(\w+)="([^"]*)"`)

func (f *importer) login(ctx context.Context, challenge string) error {
	param := map[string]string{}
	for _, m := range challengeParam.FindAllStringSubmatch(challenge, -1) {
		param[m[1]] = m[2]
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, param["realm"], nil)
	if err != nil {
		return err
	}
	q := req.URL.Query()
	q.Set("service", param["service"])
	q.Set("scope", param["scope"])
	req.URL.RawQuery = q.Encode()
	resp, err := f.server.upstream.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	f.token = answer.Token
	return nil
}
