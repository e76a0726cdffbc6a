package ecrtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxTokens bounds the tokens in memory, including expired ones.
const maxTokens = 10000

// token is a token issued by GetAuthorizationToken, or by the token endpoint of a registry with
// Bearer tokens.
type token struct {
	principal string // ARN, or a name in HubOptions.Users; empty for an anonymous client
	region    string
	expires   time.Time
	push      bool     // whether a Bearer token allows pushes; not used with Basic
	scopes    []string // scopes of a Bearer token
}

// issue stores a new token and returns its password. As at ECR, the password is base64 of JSON, but
// ECR's passwords vary in size.
func (s *Server) issue(t *token) string {
	body, _ := json.Marshal(map[string]any{
		"payload": base64.StdEncoding.EncodeToString(randomBytes(700)), "datakey": base64.StdEncoding.EncodeToString(randomBytes(184)),
		"version": "2", "type": "DATA_KEY", "expiration": t.expires.Unix(),
	})
	password := base64.StdEncoding.EncodeToString(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[password] = t
	s.tokenOrder = append(s.tokenOrder, password)
	if len(s.tokenOrder) > maxTokens {
		delete(s.tokens, s.tokenOrder[0])
		s.tokenOrder = s.tokenOrder[1:]
	}
	return password
}

// ExpireTokens expires all tokens issued so far.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.nowLocked().Add(-time.Second)
	for _, t := range s.tokens {
		if t.expires.After(past) {
			t.expires = past
		}
	}
}

// ForgetTokens makes all tokens issued so far invalid, as if they had never been issued.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
	s.tokenOrder = nil
}

// resolveHost returns the registry for a Host header.
func (s *Server) resolveHost(host string) (*registry, error) {
	if !s.opts.Quirks.HostDecides {
		return s.defaultRegistry(), nil
	}
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if slices.Contains(s.opts.AcceptHosts, host) || slices.Contains(s.opts.AcceptHosts, name) {
		return s.defaultRegistry(), nil
	}
	if m := registryHost.FindStringSubmatch(name); m != nil {
		if g, ok := s.registries[RegistryID{m[1], m[2]}]; ok {
			return g, nil
		}
	}
	return nil, refuse(s.Switches().HostUnknownStatus, "UNSUPPORTED", "Could not resolve registry id from host %s", name)
}

// authenticate returns the token of the request. An error is the answer to send, such as a
// challenge.
func (s *Server) authenticate(g *registry, r *http.Request, c call) (*token, error) {
	if s.opts.Quirks.Auth == AuthBearer {
		return s.authenticateBearer(r, c)
	}
	_, password, ok := r.BasicAuth()
	if !ok {
		return nil, s.challengeBasic(g)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[password]
	if !ok || t.region != g.region {
		return nil, refuse(s.Switches().InvalidTokenStatus, "DENIED", "Your Authorization Token is invalid.")
	}
	if s.nowLocked().After(t.expires) {
		return nil, refuse(http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	}
	return t, nil
}

// challengeBasic returns the 401 of ECR, which is known from a capture: a text body, an empty Sizes
// header, and the registry's host name at ECR as the realm.
func (s *Server) challengeBasic(g *registry) *wireError {
	h := http.Header{}
	h.Set("Www-Authenticate", fmt.Sprintf(`Basic realm="https://%s/",service="ecr.amazonaws.com"`, s.withPort(hostName(g.account, g.region))))
	if s.opts.Quirks.SizesHeader {
		h.Set("Sizes", "")
	}
	return &wireError{Status: http.StatusUnauthorized, Message: "Not Authorized\n", Text: true, Header: h}
}

// SetDenials replaces the IAM denials.
func (s *Server) SetDenials(d ...Denial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = slices.Clone(d)
}

// forbids reports whether a denial applies to the action.
func (s *Server) forbids(principal, action, resource string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.denied, func(d Denial) bool {
		return wildcard(orDefault(d.Principal, "*"), principal) && wildcard(orDefault(d.Action, "*"), action) &&
			wildcard(orDefault(d.Resource, "*"), resource)
	})
}

func deniedText(principal, action, resource string) string {
	return fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		principal, action, resource, action)
}

// authorize applies the IAM denials to a request to the registry.
func (s *Server) authorize(g *registry, t *token, c call) error {
	op, ok := operation[c.Kind]
	if !ok || s.opts.Quirks.Auth != AuthBasic {
		return nil
	}
	action, resource := "ecr:"+op, g.arn(orDefault(c.Repo, "*"))
	if c.Kind == KindReferrers && s.forbids(t.principal, "ecr:BatchGetImage", resource) {
		action = "ecr:BatchGetImage" // ListImageReferrers needs this right, too (ECR model, 2026-08)
	} else if !s.forbids(t.principal, action, resource) {
		return nil
	}
	sw := s.Switches()
	if op == "InitiateLayerUpload" && sw.DeniedUploadHangsUp {
		return hangup()
	}
	if c.Repo != "" && sw.DeniedMissingStatus == http.StatusNotFound && !s.hasRepository(g, c.Repo) {
		return g.nameUnknown(c.Repo)
	}
	return refuse(http.StatusForbidden, "DENIED", "%s", deniedText(t.principal, action, resource))
}

func (s *Server) hasRepository(g *registry, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := g.find(name, s.nowLocked())
	return ok
}
