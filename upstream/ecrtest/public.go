package ecrtest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// authenticatePublic returns the token of a request to ECR Public.
func (s *Server) authenticatePublic(r *http.Request, c call) (*token, error) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		e := refuse(http.StatusUnauthorized, "DENIED", "Not Authorized")
		e.Header = http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer realm="%s/token/",service="public.ecr.aws",scope="%s"`, s.origin(r), s.opts.Quirks.SharedScope)}}
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[bearer]
	switch {
	case !ok:
		return nil, refuse(http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid.")
	case s.nowLocked().After(t.expires):
		return nil, refuse(http.StatusBadRequest, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	case c.Kind.writes() && !t.push:
		return nil, refuse(http.StatusForbidden, "DENIED", "Not Authorized")
	}
	return t, nil
}

// exchangeToken serves the token endpoint of ECR Public. The password is a token of
// GetAuthorizationToken. Anonymous clients send no password.
func (s *Server) exchangeToken(w http.ResponseWriter, password string, given bool) error {
	now := s.now()
	issued := &token{expires: now.Add(s.opts.TokenLife)}
	if given {
		s.mu.Lock()
		t, ok := s.tokens[password]
		s.mu.Unlock()
		if !ok || now.After(t.expires) {
			return refuse(http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid.")
		}
		issued = &token{principal: t.principal, expires: t.expires, push: true}
	}
	return writeJSON(w, http.StatusOK, "application/json", map[string]string{"token": s.issue(issued)})
}

// publicHandler serves GetAuthorizationToken of ECR Public. The call exists only in us-east-1, and
// also needs the right sts:GetServiceBearerToken (ECR Public API reference).
func (s *Server) publicHandler() http.Handler {
	kind := func(*http.Request) Kind { return "GetAuthorizationToken" }
	return s.observe(surface{"api", kind, writeAPIError, "ThrottlingException", "ServerException"}, func(w http.ResponseWriter, r *http.Request) {
		out, err := s.publicToken(r)
		if err == nil {
			err = writeJSON(w, http.StatusOK, jsonProtocol, out)
		}
		if err != nil {
			writeAPIError(w, s.wire(err))
		}
	})
}

func (s *Server) publicToken(r *http.Request) (any, error) {
	c, err := s.signedCall(r, "ecr-public")
	if err != nil {
		return nil, err
	}
	if c.region != "us-east-1" {
		return nil, exception("UnsupportedCommandException", "ECR Public is not in %s", c.region)
	}
	for _, action := range []string{"ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"} {
		if s.forbids(c.principal, action, "*") {
			return nil, exception("AccessDeniedException", "%s", deniedText(c.principal, action, "*"))
		}
	}
	expires := s.now().Add(s.opts.TokenLife)
	password := s.issue(&token{principal: c.principal, region: c.region, expires: expires})
	return map[string]any{"authorizationData": map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)), "expiresAt": epoch(expires),
	}}, nil
}
