package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dray/upstream/oci"
)

const (
	// minTokenLife is the life of a token whose answer has no expires_in
	// (https://distribution.github.io/distribution/spec/auth/token/). dray also uses it in place of a
	// shorter expires_in.
	minTokenLife = 60 * time.Second
	// tokenTimeout bounds one token request.
	tokenTimeout = 20 * time.Second
	// renewPause is the wait after a failed renewal, during which the old token is used.
	renewPause = 5 * time.Second
	// maxTokens bounds the tokens in the cache, because a registry may have any number of
	// repositories, each with its own scope.
	maxTokens = 4096
	// maxTokenHops bounds the redirects of one token request.
	maxTokenHops = 5
	// maxTokenAnswer bounds the bytes read from a token endpoint.
	maxTokenAnswer = 1 << 20
)

// bearer has the parts of a Bearer challenge that are the same for a whole registry.
type bearer struct {
	realm   *url.URL
	service string
}

// token is an access token, with the scopes of its request, and the times of its request, its next
// renewal and its end.
type token struct {
	value                 Secret
	scopes                []string
	asked, renew, expires time.Time
}

func (t token) valid(now time.Time) bool { return t.value != "" && now.Before(t.expires) }

// covers reports whether the token was requested with all of these scopes.
func (t token) covers(scopes []string) bool {
	return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(t.scopes, s) })
}

// tokens caches access tokens by scope, and sends at most one request at a time for each scope.
type tokens struct {
	fetch func(ctx context.Context, scopes []string) (token, error)

	mu      sync.Mutex // guards entries; never held during a request
	entries map[string]*entry
}

type entry struct {
	scopes []string // scopes of the last request; a challenge may have widened them
	token  token
	flight *flight
}

// flight is one token request. token and err are set before done closes.
type flight struct {
	done  chan struct{}
	token token
	err   error
}

// get returns the token of key. It requests a new token if the cache has no valid token, or if the
// cached token is due for renewal. It also requests a new token if the cached token is badToken,
// which the registry has just refused. badToken is empty if the registry refused none. While a
// request for key is in flight, get returns the cached token if that token is valid and differs
// from badToken. Without such a token, get waits for the request in flight. The new token is for
// challengeScopes, which a challenge has named, and a cached token counts only if it was requested
// with these scopes. If challengeScopes is nil, the new token is for the scopes of the last token
// request for key. If there was no such request, the new token is for the scopes in the parameter
// scopes.
func (c *tokens) get(ctx context.Context, key string, scopes, challengeScopes []string, badToken Secret) (token, error) {
	tok, joined, err := c.getOnce(ctx, key, scopes, challengeScopes, badToken)
	// The request that getOnce joined may have had an older credential, or fewer scopes, than a
	// request that begins now.
	if joined && (errors.Is(err, ErrRefused) || err == nil && !tok.covers(challengeScopes)) {
		tok, _, err = c.getOnce(ctx, key, scopes, challengeScopes, badToken)
	}
	return tok, err
}

// getOnce does the work of get, with at most one token request. If joined is true, the caller has
// waited for a request that was in flight already, and the error may concern an older credential.
func (c *tokens) getOnce(ctx context.Context, key string, scopes, challengeScopes []string, badToken Secret) (tok token, joined bool, err error) {
	now := time.Now()
	c.mu.Lock()
	e := c.entry(key, now)
	if challengeScopes != nil {
		e.scopes = challengeScopes
	} else if e.scopes == nil {
		e.scopes = scopes
	}
	held, valid := e.token, e.token.valid(now) && e.token.value != badToken && e.token.covers(challengeScopes)
	if valid && (now.Before(held.renew) || e.flight != nil) {
		c.mu.Unlock()
		return held, false, nil
	}
	f, leader := e.flight, e.flight == nil
	if leader {
		f = &flight{done: make(chan struct{})}
		e.flight = f
	}
	wanted := e.scopes
	c.mu.Unlock()

	if leader {
		c.lead(ctx, e, f, wanted)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return token{}, false, ctx.Err()
	}
	if f.err != nil && valid && held.valid(time.Now()) {
		return held, false, nil
	}
	return f.token, !leader, f.err
}

// lead sends the token request of a flight. The token request is not cancelled with the caller's
// request, because other callers wait for the token.
func (c *tokens) lead(ctx context.Context, e *entry, f *flight, scopes []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTimeout)
	defer cancel()
	f.err = errNoResult
	defer func() { // also if fetch panics
		c.mu.Lock()
		defer c.mu.Unlock()
		e.flight = nil
		if f.err == nil {
			e.token = f.token
		} else {
			e.token.renew = time.Now().Add(renewPause)
		}
		close(f.done)
	}()
	f.token, f.err = c.fetch(ctx, scopes)
	f.token.scopes = scopes
}

// drop removes the token of key, if that token is still badToken.
func (c *tokens) drop(key string, badToken Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.token.value == badToken {
		e.token = token{}
	}
}

// entry finds or makes the entry of key; c.mu is held.
func (c *tokens) entry(key string, now time.Time) *entry {
	if e := c.entries[key]; e != nil {
		return e
	}
	if c.entries == nil {
		c.entries = map[string]*entry{}
	}
	if len(c.entries) >= maxTokens {
		c.evict(now)
	}
	e := &entry{}
	c.entries[key] = e
	return e
}

// evict removes the expired entries, or one random entry if none has expired. It keeps entries with
// a request in flight, so that no second request for their scopes is sent; c.mu is held.
func (c *tokens) evict(now time.Time) {
	for k, e := range c.entries {
		if e.flight == nil && !e.token.valid(now) {
			delete(c.entries, k)
		}
	}
	for k, e := range c.entries {
		if len(c.entries) < maxTokens {
			return
		}
		if e.flight == nil {
			delete(c.entries, k)
		}
	}
}

// tokenAnswer is the answer of a token endpoint. Some registries name the token "token", others
// "access_token".
type tokenAnswer struct {
	Token       string       `json:"token"`
	AccessToken string       `json:"access_token"`
	ExpiresIn   looseSeconds `json:"expires_in"`
}

// looseSeconds is a number of seconds that may have a fraction or be in quotes. Anything else is 0,
// because a token is useful even if its life is unknown.
type looseSeconds float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *looseSeconds) UnmarshalJSON(p []byte) error {
	f, err := strconv.ParseFloat(string(bytes.Trim(p, `" `)), 64)
	if err == nil && f > 0 {
		*n = looseSeconds(f)
	}
	return nil
}

// duration returns n as a duration, a week at most.
func (n looseSeconds) duration() time.Duration {
	return time.Duration(min(float64(n), 7*24*3600) * float64(time.Second))
}

// requestToken gets a token with the given scopes from the realm (the token endpoint). If the realm
// refuses, requestToken finds out whether the refusal concerns the credential (ErrRefused) or the
// scopes (ErrDenied). The refusal concerns the credential if the realm also refuses a token without
// scopes. Without a credential, the refusal concerns the scopes.
func (t *Transport) requestToken(ctx context.Context, scopes []string) (token, error) {
	b := t.challenge.Load()
	if b == nil {
		return token{}, &TokenError{Err: errors.New("the registry sent no challenge")}
	}
	cred, err := t.credential(ctx)
	if err != nil {
		return token{}, b.failed(0, err)
	}
	if cred.Anonymous() {
		tok, err := t.fetchToken(ctx, b, cred, scopes)
		return tok, denied(err)
	}
	var tok token
	var refusal error // the refusal of these scopes
	ask := func(ctx context.Context, suspect bool) (err error) {
		if !suspect {
			if tok, err = t.fetchToken(ctx, b, cred, scopes); !errors.Is(err, ErrRefused) {
				return err
			}
			refusal = err
		}
		return t.tokenWithoutScopes(ctx, b, cred)
	}
	for {
		if err := t.trust.prove(ctx, cred, trustedFor, refusal != nil, ask); err != nil || tok.value != "" {
			return tok, err
		}
		if refusal != nil {
			return token{}, denied(refusal)
		}
		if tok, err = t.fetchToken(ctx, b, cred, scopes); !errors.Is(err, ErrRefused) {
			return tok, err
		}
		refusal = err
	}
}

// tokenWithoutScopes requests a token without scopes, and returns an error if the realm does not
// accept the credential. Any 4xx except 429 counts as a refusal of the credential, because the
// realm has already refused this credential in a request with scopes.
func (t *Transport) tokenWithoutScopes(ctx context.Context, b *bearer, cred Credential) error {
	_, err := t.fetchToken(ctx, b, cred, nil)
	if e, ok := errors.AsType[*TokenError](err); ok && e.Status/100 == 4 && e.Status != http.StatusTooManyRequests {
		return b.failed(e.Status, ErrRefused)
	}
	return err
}

// The function denied returns err, but an error that matches ErrRefused becomes one that matches
// ErrDenied.
func denied(err error) error {
	e, ok := errors.AsType[*TokenError](err)
	if !ok || !errors.Is(err, ErrRefused) {
		return err
	}
	return &TokenError{Realm: e.Realm, Status: e.Status, Err: ErrDenied}
}

func (b *bearer) failed(status int, cause error) *TokenError {
	return &TokenError{Realm: b.realm.Scheme + "://" + b.realm.Host + b.realm.Path, Status: status, Err: cause}
}

// fetchToken makes one token request. Its error matches ErrRefused if the answer is 401 or 403.
func (t *Transport) fetchToken(ctx context.Context, b *bearer, cred Credential, scopes []string) (token, error) {
	sent := time.Now()
	resp, err := t.sendTokenRequest(ctx, b.address(scopes), cred)
	if err != nil {
		return token{}, b.failed(0, err)
	}
	defer resp.Body.Close()
	var body []byte
	text, err := oci.Text(resp)
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(text, maxTokenAnswer))
	}
	if err != nil {
		return token{}, b.failed(resp.StatusCode, err)
	}
	if resp.StatusCode/100 != 2 {
		e := b.failed(resp.StatusCode, statusCause(resp.StatusCode))
		e.RetryAfter = oci.RetryAfter(resp.Header)
		return token{}, e
	}
	tok, err := parseToken(body, sent)
	if err != nil {
		return token{}, b.failed(resp.StatusCode, err)
	}
	return tok, nil
}

// parseToken reads the answer to a token request. sent is when the request was sent.
func parseToken(body []byte, sent time.Time) (token, error) {
	var a tokenAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		// The text of a JSON error may quote the body, which may contain a token.
		return token{}, errors.New("the answer is not JSON")
	}
	value := cmp.Or(a.Token, a.AccessToken)
	if value == "" {
		return token{}, errors.New("the answer has no token")
	}
	life := max(a.ExpiresIn.duration(), minTokenLife)
	return token{value: Secret(value), asked: sent, renew: sent.Add(life * 3 / 4), expires: sent.Add(life)}, nil
}

func statusCause(status int) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrRefused
	default:
		return errors.New(http.StatusText(status))
	}
}

func (b *bearer) address(scopes []string) *url.URL {
	u := *b.realm
	q := u.Query()
	if b.service != "" {
		q.Set("service", b.service)
	}
	for _, s := range scopes {
		q.Add("scope", s)
	}
	u.RawQuery = q.Encode()
	return &u
}

// sendTokenRequest sends a token request and follows redirects. Gitea, Harbor and Artifactory need
// this behind a proxy that terminates TLS: there, they name a realm that redirects to the right
// realm (moby#38662). The credential follows a redirect only to the same host.
func (t *Transport) sendTokenRequest(ctx context.Context, u *url.URL, cred Credential) (*http.Response, error) {
	shown := !cred.Anonymous()
	for hop := 0; ; hop++ {
		if t.secure && u.Scheme != "https" && !cred.Anonymous() {
			return nil, fmt.Errorf("%w: the registry uses TLS, but its token endpoint does not", ErrRefused)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", t.o.UserAgent)
		req.Header.Set("Accept-Encoding", "identity")
		if shown {
			req.Header.Set("Authorization", cred.basic().Reveal())
		}
		resp, err := t.o.Base.RoundTrip(req)
		if err != nil || resp.StatusCode/100 != 3 || resp.Header.Get("Location") == "" {
			return resp, err
		}
		_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal) // so that the connection can be reused
		_ = resp.Body.Close()
		next, err := u.Parse(resp.Header.Get("Location"))
		if err != nil || !t.usable(next) {
			return nil, errors.New("the location of a redirect is not a URL")
		}
		if hop == maxTokenHops {
			return nil, fmt.Errorf("more than %d redirects", maxTokenHops)
		}
		shown = shown && next.Host == u.Host
		u = next
	}
}

// usable reports whether a token can be requested from u. A registry behind a proxy that terminates
// TLS may send its own address with http. usable then sets the scheme and host of u to those of the
// registry.
func (t *Transport) usable(u *url.URL) bool {
	if u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return false
	}
	if t.secure && u.Scheme == "http" && strings.EqualFold(u.Hostname(), t.o.Origin.Hostname()) && (u.Port() == "" || u.Port() == "80" || u.Port() == t.o.Origin.Port()) {
		u.Scheme, u.Host = t.o.Origin.Scheme, t.o.Origin.Host
	}
	return true
}
