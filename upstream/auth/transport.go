package auth

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dray/upstream/oci"
)

// maxRefusal bounds how many bytes of a refusal's body are read.
const maxRefusal = 8 << 10

// Refusal is an answer that may mean an expired credential.
type Refusal struct {
	Request *http.Request
	Status  int
	Header  http.Header
	// Body is the start of the answer, at most 8 KiB; empty for HEAD.
	Body []byte
	// Credential is the credential that was sent as Basic; zero if a bearer token or nothing was sent.
	Credential Credential
}

// Options configure a Transport.
type Options struct {
	// Base sends the requests, including the requests to the token endpoint. Required.
	Base http.RoundTripper
	// Origin is the registry's base URL. Only requests to its scheme, host and port are
	// authorised.
	Origin *url.URL
	// Host is the registry's name in calls of Credentials and in the Transport's own requests to /v2/;
	// empty means the host of Origin.
	Host string
	// Credentials returns the credential; nil means anonymous.
	Credentials Credentials
	// Expired reports whether a refusal means an expired credential. It is called for the statuses
	// 400, 401 and 403, unless a challenge in the refusal decides what to do. ECR sends no challenge
	// when a credential has expired. Nil means never.
	Expired func(Refusal) bool
	// UserAgent is sent to the token endpoint; empty means "dray".
	UserAgent string
}

// Transport authorises the requests to one registry. Requests to any other host go without
// credentials. If such a host is a registry that wants a token, reads below its /v2/ get an
// anonymous token.
type Transport struct {
	o      Options
	origin string // scheme and host
	secure bool

	challenge   atomic.Pointer[bearer] // the last Bearer challenge; nil before the first
	sharedScope atomic.Pointer[string] // the scope of a challenge without a repository (ECR Public)
	// perRepository says that the registry has asked for the scope of a repository. sharedScope, which
	// the challenge of /v2/ may have set, is then not used.
	perRepository atomic.Bool
	// basic says to send a credential as Basic, because the registry has sent a Basic challenge, or
	// wants no credentials for /v2/, and so names no scheme there.
	basic  atomic.Bool
	tokens tokens
	trust  trust
	asked  atomic.Bool // /v2/ has answered an anonymous request
	open   atomic.Bool // /v2/ accepts anonymous requests
	asking crowd       // anonymous requests to /v2/
	others others
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a Transport. It sends nothing before the first request.
func New(o Options) *Transport {
	o.Host, o.UserAgent = cmp.Or(o.Host, o.Origin.Host), cmp.Or(o.UserAgent, "dray")
	t := &Transport{o: o, origin: o.Origin.Scheme + "://" + o.Origin.Host, secure: o.Origin.Scheme == "https"}
	t.tokens.fetch = t.requestToken
	return t
}

// authorization is the Authorization header of one attempt, and its source.
type authorization struct {
	header Secret
	cred   Credential // for Basic
	key    string     // for a bearer token: its key in the cache
	token  token
}

// RoundTrip sends the request with the kind of authorization that the registry has asked for, or
// with the credential if the credential is preemptive. If the registry refuses the authorization,
// RoundTrip gets another authorization and sends the request once more. If the body of the request
// cannot be read again, RoundTrip returns the refusal instead, and uses the challenge in it for the
// next request. If the registry refuses the credential itself, RoundTrip returns an error that
// matches ErrRefused. So a 401 from RoundTrip concerns the content, unless the body of the request
// cannot be read again.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host != t.origin {
		return t.elsewhere(req).RoundTrip(req)
	}
	var s authorization
	var err error
	if t.within(req) {
		s, err = t.authorize(req)
	}
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.o.Base.RoundTrip(s.apply(req))
	if err != nil {
		return nil, err
	}
	if s.header == "" && t.isBase(req.URL) && resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests {
		t.storeBase(req, resp)
	}
	next, err := t.reconsider(req, resp, s)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if next == nil {
		return t.judged(req, resp, s)
	}
	retry, ok := next.repeat(req)
	if !ok {
		// Some registries refuse expired tokens with 400 or 403. RoundTrip returns 401 instead, after
		// which the caller tries again.
		if s.token.value != "" {
			resp.StatusCode, resp.Status = http.StatusUnauthorized, "401 Unauthorized"
		}
		return t.judged(req, resp, s)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal) // so that the connection can be reused
	_ = resp.Body.Close()
	if resp, err = t.o.Base.RoundTrip(retry); err != nil {
		return nil, err
	}
	return t.judged(req, resp, *next)
}

// judged returns the final answer to a request, or an error if the registry refuses a Basic
// credential itself. A bearer token needs no judgement, because the token endpoint has accepted the
// credential.
func (t *Transport) judged(req *http.Request, resp *http.Response, s authorization) (*http.Response, error) {
	if s.cred.Anonymous() {
		return resp, nil
	}
	if t.isBase(req.URL) {
		t.trust.record(s.cred, statusError(resp.StatusCode), false)
	}
	if resp.StatusCode != http.StatusUnauthorized {
		return resp, nil
	}
	if err := t.doubt(req.Context(), s.cred); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// apply returns a copy of the request with the authorization s.
func (s authorization) apply(req *http.Request) *http.Request {
	c := req.Clone(req.Context())
	c.Header.Del("Authorization")
	if s.header != "" {
		c.Header.Set("Authorization", s.header.Reveal())
	}
	return c
}

// repeat returns a copy of the request with the authorization s, for a second attempt. ok is false
// if the body cannot be read again.
func (s authorization) repeat(req *http.Request) (c *http.Request, ok bool) {
	c = s.apply(req)
	if req.Body == nil || req.Body == http.NoBody {
		return c, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	var err error
	c.Body, err = req.GetBody()
	return c, err == nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

func (t *Transport) credential(ctx context.Context) (Credential, error) {
	if t.o.Credentials == nil {
		return Credential{}, nil
	}
	c, err := t.o.Credentials(ctx, t.o.Host)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w for %s: %w", ErrMissing, t.o.Host, err)
	}
	return c, err
}

// authorize returns the authorization for the first attempt.
func (t *Transport) authorize(req *http.Request) (authorization, error) {
	if t.challenge.Load() != nil {
		return t.bearer(req, nil, "")
	}
	cred, err := t.credential(req.Context())
	if err != nil || cred.Anonymous() {
		return authorization{}, err
	}
	if cred.Preemptive {
		return authorization{header: cred.basic(), cred: cred}, nil
	}
	if !t.basic.Load() && !t.isBase(req.URL) {
		if err := t.askChallenge(req.Context()); err != nil {
			return authorization{}, err
		}
		if t.challenge.Load() != nil {
			return t.bearer(req, nil, "")
		}
	}
	if !t.basic.Load() {
		return authorization{}, nil
	}
	return t.withBasic(req, cred)
}

// withBasic returns the Basic authorization with a credential. If /v2/ has not accepted the
// credential yet, withBasic first sends a request with it to /v2/. If req is itself a request to
// /v2/, it gets the credential at once, because its own answer shows whether /v2/ accepts the
// credential. The error matches ErrRefused if the registry refuses the credential, or has done so a
// short while ago.
func (t *Transport) withBasic(req *http.Request, cred Credential) (authorization, error) {
	if t.isBase(req.URL) {
		_, known, err := t.trust.known(cred, forever, false)
		if !known {
			err = nil
		}
		return authorization{header: cred.basic(), cred: cred}, err
	}
	err := t.trust.prove(req.Context(), cred, forever, false, t.showTo(cred))
	return authorization{header: cred.basic(), cred: cred}, err
}

// bearer gets a token for the request. challengeScopes are the scopes of the challenge to the
// request, or nil before a challenge. badToken has the same meaning as in tokens.get.
func (t *Transport) bearer(req *http.Request, challengeScopes []string, badToken Secret) (authorization, error) {
	key, scopes := t.scope(req)
	tok, err := t.tokens.get(req.Context(), key, scopes, challengeScopes, badToken)
	return authorization{header: "Bearer " + tok.value, key: key, token: tok}, err
}

// scope returns the cache key of the request's token, and the scopes for the first token request
// with this key. If a challenge has named other scopes for the key, tokens.get uses the scopes of
// the challenge.
func (t *Transport) scope(req *http.Request) (key string, scopes []string) {
	if s := t.sharedScope.Load(); s != nil && !t.perRepository.Load() {
		return *s, strings.Fields(*s)
	}
	scopes = Scope(req)
	return strings.Join(scopes, " "), scopes
}

// Scope returns the scopes that a request needs, in the form of the token specification
// (https://distribution.github.io/distribution/spec/auth/scope/). A request that is not about a
// repository needs no scopes.
func Scope(req *http.Request) []string {
	if s, ok := req.Context().Value(scopeKey{}).([]string); ok {
		return s
	}
	q, err := oci.Parse(req)
	if err != nil || q.Repo == "" {
		return nil
	}
	scopes := []string{PullScope(q.Repo)}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		scopes[0] = PushScope(q.Repo)
	}
	if q.From != "" && q.From != q.Repo {
		scopes = append(scopes, PullScope(q.From))
	}
	return scopes
}

// PullScope returns the scope for reading a repository (distribution, "Token Scope
// Documentation").
func PullScope(repo string) string { return "repository:" + repo + ":pull" }

// PushScope returns the scope for reading and writing a repository.
func PushScope(repo string) string { return "repository:" + repo + ":pull,push" }

// DeleteScope returns the scope for deleting from a repository.
func DeleteScope(repo string) string { return "repository:" + repo + ":pull,delete" }

type scopeKey struct{}

// WithScope returns a context with the scopes of a request. It is for URLs that do not name the
// repository, such as the upload URLs of some registries.
func WithScope(ctx context.Context, scopes ...string) context.Context {
	return context.WithValue(ctx, scopeKey{}, scopes)
}

// reconsider returns the authorization for a second attempt, or nil if the answer is final.
func (t *Transport) reconsider(req *http.Request, resp *http.Response, s authorization) (*authorization, error) {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
	default:
		return nil, nil
	}
	if resp.StatusCode == http.StatusUnauthorized {
		for _, c := range ParseChallenges(resp.Header.Values("Www-Authenticate")) {
			switch c.Scheme {
			case "bearer":
				scopes, ok := t.storeChallenge(req, c)
				if ok && c.Params["error"] == "insufficient_scope" && s.token.value != "" && s.token.covers(scopes) {
					return nil, nil // the endpoint does not grant more (RFC 6750 section 3.1)
				}
				if ok {
					return t.replace(req, s, scopes)
				}
			case "basic":
				t.basic.Store(true)
				if next, err := t.replace(req, s, nil); next != nil || err != nil {
					return next, err
				}
			}
		}
	}
	if t.o.Expired != nil && t.o.Expired(t.refusal(req, resp, s)) {
		return t.replace(req, s, nil)
	}
	if s.token.value != "" && time.Since(s.token.asked) > youngToken && !insufficient(resp) {
		return t.renewed(req, s), nil
	}
	return nil, nil
}

// youngToken is the age up to which dray assumes that a token has not expired. If the registry
// refuses a younger token without a challenge, the refusal concerns the content, and dray requests
// no new token. So such refusals cost at most one new token in 10 s.
const youngToken = 10 * time.Second

// insufficient reports whether a refusal says that the token is good, but does not grant enough
// (RFC 6750 section 3.1).
func insufficient(resp *http.Response) bool {
	return slices.ContainsFunc(ParseChallenges(resp.Header.Values("Www-Authenticate")), func(c Challenge) bool {
		return c.Params["error"] == "insufficient_scope"
	})
}

// renewed returns a new token for a request that was refused without a challenge. The old token may
// have expired early: ECR Public then answers 400 (oras-go#1227), others answer 403 (kpm#698). If
// there is no new token, renewed returns nil, and the refusal is final.
func (t *Transport) renewed(req *http.Request, s authorization) *authorization {
	next, err := t.bearer(req, nil, s.token.value)
	if err != nil || next.header == s.header {
		return nil
	}
	return &next
}

// storeChallenge stores the realm and service of a Bearer challenge, and returns its scopes. It
// returns false if dray cannot use the realm.
func (t *Transport) storeChallenge(req *http.Request, c Challenge) (scopes []string, ok bool) {
	realm, err := req.URL.Parse(c.Params["realm"])
	if err != nil || c.Params["realm"] == "" || !t.usable(realm) {
		return nil, false
	}
	t.challenge.Store(&bearer{realm: realm, service: c.Params["service"]})
	scopes = strings.Fields(c.Params["scope"])
	if len(scopes) == 0 {
		return nil, true
	}
	if slices.ContainsFunc(scopes, func(s string) bool { return strings.HasPrefix(s, "repository:") }) {
		t.perRepository.Store(true)
	} else {
		sharedScope := strings.Join(scopes, " ")
		t.sharedScope.Store(&sharedScope)
	}
	return scopes, true
}

// replace drops the refused authorization and returns another, or nil if there is none.
func (t *Transport) replace(req *http.Request, s authorization, challengeScopes []string) (*authorization, error) {
	var next authorization
	var err error
	if t.challenge.Load() != nil {
		if s.token.value != "" {
			t.tokens.drop(s.key, s.token.value)
		}
		next, err = t.bearer(req, challengeScopes, "")
	} else {
		if s.cred.Invalidate != nil {
			s.cred.Invalidate()
		}
		var cred Credential
		cred, err = t.credential(req.Context())
		switch {
		case err != nil || cred.Anonymous() || cred.basic() == s.header:
		case cred.Preemptive:
			next = authorization{header: cred.basic(), cred: cred}
		default:
			next, err = t.withBasic(req, cred)
		}
	}
	if err != nil || next.header == "" || next.header == s.header {
		return nil, err
	}
	return &next, nil
}

// refusal returns the Refusal for an answer, whose body can still be read in full afterwards.
func (t *Transport) refusal(req *http.Request, resp *http.Response, s authorization) Refusal {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = &errReader{err}
	}
	resp.Body = &joinedBody{io.MultiReader(bytes.NewReader(head), rest), resp.Body}
	return Refusal{Request: req, Status: resp.StatusCode, Header: resp.Header, Body: head, Credential: s.cred}
}

type joinedBody struct {
	io.Reader
	io.Closer
}

type errReader struct{ err error }

func (f *errReader) Read([]byte) (int, error) { return 0, f.err }
