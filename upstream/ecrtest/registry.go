package ecrtest

import (
	"errors"
	"net/http"
	"net/url"
)

// exchange is one authenticated request to the registry.
type exchange struct {
	call
	w   http.ResponseWriter
	r   *http.Request
	reg *registry
	who *token
	sw  Switches
}

// Registry returns the registry's HTTP API below /v2/. If the registry uses Bearer tokens, the API
// also has /token.
func (s *Server) Registry() http.Handler {
	kind := func(r *http.Request) Kind { return parseCall(r).Kind }
	return s.below(s.observe(surface{"registry", kind, writeRegistryError, "TOOMANYREQUESTS", "UNKNOWN"}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if ahead := s.Dialect().ClockAhead; ahead != 0 {
			w.Header().Set("Date", s.now().Add(ahead).UTC().Format(http.TimeFormat))
		}
		w, end := s.compress(w, r)
		defer end()
		if err := s.serveRegistry(w, r); err != nil {
			writeRegistryError(w, s.wire(err))
		}
	}))
}

// wire converts the error of a handler to an answer.
func (s *Server) wire(err error) *wireError {
	if e, ok := errors.AsType[*wireError](err); ok {
		if s.opts.Quirks.ErrorNewline {
			e.End = "\n"
		}
		return e
	}
	s.opts.Logger.Error("request failed", "error", err)
	return refuse(http.StatusInternalServerError, "UNKNOWN", "internal error")
}

func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) error {
	reg, err := s.resolveHost(r.Host)
	if err != nil {
		return err
	}
	c := parseCall(r)
	if done, err := s.divert(w, r, c.Kind); done {
		return err
	}
	if c.Kind == KindToken {
		return s.serveToken(w, r)
	}
	who, err := s.authenticate(reg, r, c)
	if err != nil {
		return err
	}
	if op := operation[c.Kind]; !s.throttle.allow(op) {
		return s.rateExceeded()
	}
	if err := s.authorize(reg, who, c); err != nil {
		return err
	}
	handle := s.handler(c.Kind)
	if handle == nil {
		return nowhere()
	}
	if c.Repo != "" && !anchoredName.MatchString(c.Repo) {
		return refuse(http.StatusBadRequest, "NAME_INVALID", "Invalid repository name '%s'", c.Repo)
	}
	return handle(&exchange{call: c, w: w, r: r, reg: reg, who: who, sw: s.Switches()})
}

// handler returns the handler of a kind, or nil if the kind has none.
func (s *Server) handler(k Kind) func(*exchange) error {
	switch k {
	case KindBase:
		return s.base
	case KindManifestGet, KindManifestHead:
		return s.readManifest
	case KindManifestPut:
		return s.putManifest
	case KindManifestDelete:
		return s.deleteManifest
	case KindBlobGet:
		return s.getBlob
	case KindBlobHead:
		return s.headBlob
	case KindBlobDelete:
		return s.deleteBlob
	case KindUploadStart, KindMount:
		return s.startUpload
	case KindUploadPatch:
		return s.patchUpload
	case KindUploadPut:
		return s.finishUpload
	case KindUploadStatus:
		return s.statUpload
	case KindUploadCancel:
		return s.cancelUpload
	case KindTags:
		return s.listTags
	case KindReferrers:
		return s.listReferrers
	case KindCatalog:
		return s.listCatalog
	}
	return nil
}

func (s *Server) base(x *exchange) error {
	return writeJSON(x.w, http.StatusOK, "application/json; charset=utf-8", struct{}{})
}

func (s *Server) rateExceeded() *wireError {
	e := refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded")
	e.Header = retryAfter(s.Switches().RetryAfter)
	return e
}

// origin returns the scheme and host to which the client sent the request.
func (s *Server) origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// location returns the Location for a path of this registry. The quirks and the dialect decide
// whether it is a URL or a path.
func (s *Server) location(x *exchange, path string, q url.Values) string {
	path = s.locationPath() + path
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	if s.opts.Quirks.AbsoluteLocation || s.Dialect().Absolute {
		return s.origin(x.r) + path
	}
	return path
}

func (s *Server) repository(x *exchange) (*repository, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := x.reg.find(x.Repo, s.nowLocked()); ok {
		return r, nil
	}
	return nil, x.reg.nameUnknown(x.Repo)
}

// repositoryForPush returns the repository. It creates a missing repository if the quirks say so,
// or if there is a creation template for its name and the client may create it.
func (s *Server) repositoryForPush(x *exchange) (*repository, error) {
	if r, err := s.repository(x); err == nil {
		return r, nil
	}
	if s.opts.Quirks.CreateRepositories {
		return s.createRepository(x.reg, newRepository(x.Repo, newUUID(), s.now())), nil
	}
	t, ok := s.template(x.Repo)
	if !ok || s.forbids(x.who.principal, "ecr:CreateRepository", x.reg.arn(x.Repo)) {
		return nil, x.reg.nameUnknown(x.Repo)
	}
	r := newRepository(x.Repo, newUUID(), s.now())
	r.mutability = orDefault(t.TagMutability, r.mutability)
	r.encryption = encryption{orDefault(t.EncryptionType, r.encryption.Type), t.KMSKey}
	return s.createRepository(x.reg, r), nil
}

// template returns the creation template with the longest matching prefix. If no other prefix
// matches, it returns the template with the prefix ROOT.
func (s *Server) template(repo string) (CreationTemplate, bool) {
	var best CreationTemplate
	found := false
	for _, t := range s.opts.CreateOnPush {
		matches := t.Prefix == "ROOT" || wildcard(t.Prefix+"/*", repo)
		if matches && (!found || best.Prefix == "ROOT" || t.Prefix != "ROOT" && len(t.Prefix) > len(best.Prefix)) {
			best, found = t, true
		}
	}
	return best, found
}

// createRepository adds a repository, or returns the repository of the same name that another
// request has added.
func (s *Server) createRepository(g *registry, r *repository) *repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := g.repos[r.name]; ok {
		return have
	}
	g.repos[r.name] = r
	return r
}
