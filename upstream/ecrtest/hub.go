package ecrtest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const hubTokenLife = 5 * time.Minute

// authenticateBearer returns the token of the request. The token must be valid, and for a request
// that writes, it must allow pushes. It must name the repository only if Dialect.BaseScope is set.
func (s *Server) authenticateBearer(r *http.Request, c call) (*token, error) {
	switch {
	case s.opts.Quirks.SharedScope != "":
		return s.authenticatePublic(r, c)
	case s.Dialect().Basic:
		return s.authenticateUser(r, c)
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, s.challengeBearer(r, c, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[bearer]
	if status := s.Dialect().EndedToken; ok && status != 0 && s.nowLocked().After(t.expires) {
		return nil, refuse(status, "DENIED", "token")
	}
	if !ok || s.nowLocked().After(t.expires) {
		return nil, s.challengeBearer(r, c, "invalid_token")
	}
	if c.Kind.writes() && !t.push {
		return nil, s.challengeBearer(r, c, "insufficient_scope")
	}
	if c.Repo != "" && s.Dialect().BaseScope != "" && !slices.ContainsFunc(t.scopes, func(scope string) bool { return strings.HasPrefix(scope, "repository:"+c.Repo+":") }) {
		return nil, s.challengeBearer(r, c, "insufficient_scope")
	}
	if s.hides(t.principal, c.Repo) {
		return nil, s.challengeBearer(r, c, "")
	}
	return t, nil
}

func (s *Server) challengeBearer(r *http.Request, c call, problem string) *wireError {
	value := fmt.Sprintf(`Bearer realm="%s/token",service="registry.docker.io"`, s.origin(r)+s.Dialect().Path)
	if scope := s.Dialect().BaseScope; c.Repo == "" && scope != "" {
		value += fmt.Sprintf(`,scope="%s"`, scope)
	}
	if c.Repo != "" {
		actions := "pull"
		if c.Kind.writes() {
			actions = "pull,push"
		}
		value += fmt.Sprintf(`,scope="repository:%s:%s"`, c.Repo, actions)
	}
	if problem != "" {
		value += fmt.Sprintf(`,error="%s"`, problem)
	}
	e := refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	e.Header = http.Header{"Www-Authenticate": s.challenges(value)}
	return e
}

// knows reports whether there is a user with this name and password.
func (o HubOptions) knows(user, password string) bool {
	want, ok := o.Users[user]
	return ok && password == want
}

// serveToken serves the token endpoint: GET with an optional Basic header, or POST with the
// OAuth2 form.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) error {
	if s.opts.Quirks.Auth != AuthBearer {
		return nowhere()
	}
	if s.redirectToken(w, r) {
		return nil
	}
	user, password, given := r.BasicAuth()
	if r.Method == http.MethodPost && r.PostFormValue("username") != "" {
		user, password, given = r.PostFormValue("username"), r.PostFormValue("password"), true
	}
	if s.opts.Quirks.SharedScope != "" {
		return s.exchangeToken(w, password, given)
	}
	if given && !s.opts.Hub.knows(user, password) {
		return refuse(http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
	}
	now := s.now()
	push := false
	scopes := append(r.URL.Query()["scope"], r.PostForm["scope"]...)
	if err := s.refuseScopes(user, scopes); err != nil {
		return err
	}
	for _, scope := range scopes {
		push = push || strings.Contains(scope, "push") || strings.HasSuffix(scope, ":*")
	}
	push = push && (given || !s.opts.Hub.PushNeedsUser)
	pass := s.issue(&token{principal: user, expires: now.Add(hubTokenLife), push: push, scopes: scopes})
	answer := map[string]any{"token": pass, "access_token": pass, "expires_in": int(hubTokenLife.Seconds()), "issued_at": now.Add(s.Dialect().ClockAhead).UTC().Format(time.RFC3339)}
	if s.Dialect().BareTokens {
		answer = map[string]any{"access_token": pass}
	}
	if s.Dialect().LooseTokens {
		answer["expires_in"] = strconv.Itoa(int(hubTokenLife.Seconds()))
		return writeJSON(w, http.StatusCreated, "application/json", answer)
	}
	return writeJSON(w, http.StatusOK, "application/json", answer)
}

// countPull counts a manifest GET towards HubOptions.PullLimit, and refuses a GET beyond the limit.
// HEAD does not count, but its answer has the headers of the limit, too.
func (s *Server) countPull(w http.ResponseWriter, r *http.Request) error {
	if !s.opts.Quirks.RateLimitHeaders {
		return nil
	}
	const window = 6 * time.Hour
	limit := orDefault(s.opts.Hub.PullLimit, 100)
	s.mu.Lock()
	now := s.nowLocked()
	if now.Sub(s.pullWindow) >= window {
		s.pullWindow, s.pullsUsed = now, 0
	}
	over := s.opts.Hub.PullLimit > 0 && s.pullsUsed >= limit
	if r.Method == http.MethodGet && !over && s.opts.Hub.PullLimit > 0 {
		s.pullsUsed++
	}
	left := limit - s.pullsUsed
	s.mu.Unlock()
	suffix := ";w=" + strconv.Itoa(int(window.Seconds()))
	w.Header().Set("Ratelimit-Limit", strconv.Itoa(limit)+suffix)
	w.Header().Set("Ratelimit-Remaining", strconv.Itoa(left)+suffix)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Docker-Ratelimit-Source", host)
	if over && r.Method == http.MethodGet {
		return refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client is gone
	return nil
}
