package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// isBase reports whether u is /v2/ of the registry.
func (t *Transport) isBase(u *url.URL) bool {
	return strings.TrimSuffix(u.Path, "/")+"/" == t.base().Path
}

// base returns the address of /v2/ of the registry.
func (t *Transport) base() *url.URL {
	return &url.URL{Scheme: t.o.Origin.Scheme, Host: t.o.Origin.Host, Path: strings.TrimSuffix(t.o.Origin.Path, "/") + "/v2/"}
}

// askChallenge finds out which credentials the registry wants, by an anonymous request to /v2/. It
// sends no request if /v2/ has already answered an anonymous request. The answer to a request for
// content does not suffice: some registries that let anybody read (Artifactory, Nexus) answer an
// anonymous request for private content with 404, and without a challenge. If /v2/ gives no answer,
// or one that says nothing about credentials, askChallenge returns an error, because a 404 for
// content would then not prove that the content does not exist.
func (t *Transport) askChallenge(ctx context.Context) error {
	if t.asked.Load() {
		return nil
	}
	_, err := t.asking.do(ctx, "", func(ctx context.Context) error {
		resp, err := t.askBase(ctx, authorization{})
		if err != nil {
			return err
		}
		t.storeBase(resp.Request, resp)
		return nil
	})
	return err
}

// storeBase records the answer of /v2/ to an anonymous request. If /v2/ wants no credentials, its
// answer names no scheme. Later requests then carry the credential, if there is one, as Basic.
func (t *Transport) storeBase(req *http.Request, resp *http.Response) {
	if resp.StatusCode/100 == 2 {
		t.open.Store(true)
		t.basic.Store(true)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		for _, c := range ParseChallenges(resp.Header.Values("Www-Authenticate")) {
			switch c.Scheme {
			case "bearer":
				t.storeChallenge(req, c)
			case "basic":
				t.basic.Store(true)
			}
		}
	}
	t.asked.Store(true)
}

// doubt finds out whether a 401 for content refuses the credential c itself, by a request to /v2/.
// It returns nil if /v2/ wants credentials and accepts c. The error matches ErrRefused if /v2/
// refuses c. If /v2/ accepts anonymous requests, its answer says nothing about c. So the 401 for
// content then counts as a refusal of c, and the error matches ErrRefused, too.
func (t *Transport) doubt(ctx context.Context, c Credential) error {
	if err := t.askChallenge(ctx); err != nil {
		return err
	}
	if t.open.Load() {
		err := statusError(http.StatusUnauthorized)
		t.trust.record(c, err, true)
		return err
	}
	return t.trust.prove(ctx, c, forever, true, t.showTo(c))
}

// showTo returns a function that sends a credential to /v2/. The error of that function matches
// ErrRefused if the registry refuses the credential.
func (t *Transport) showTo(c Credential) func(ctx context.Context, suspect bool) error {
	return func(ctx context.Context, _ bool) error {
		resp, err := t.askBase(ctx, authorization{header: c.basic(), cred: c})
		if err != nil {
			return err
		}
		return statusError(resp.StatusCode)
	}
}

// askBase sends GET /v2/ and returns the answer without its body. An answer that says nothing about
// credentials, such as 503, is an error.
func (t *Transport) askBase(ctx context.Context, s authorization) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base().String(), nil)
	if err != nil {
		return nil, err
	}
	req.Host = t.o.Host
	req.Header.Set("User-Agent", t.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := t.o.Base.RoundTrip(s.apply(req))
	if err != nil {
		return nil, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal) // so that the connection can be reused
	_ = resp.Body.Close()
	if err := statusError(resp.StatusCode); err != nil && !errors.Is(err, ErrRefused) {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// statusError returns the error for the status of an answer of /v2/. For 401 the error matches
// ErrRefused. For 429, and for 500 and above, it does not. All other statuses give no error.
func statusError(status int) error {
	switch {
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: GET /v2/ answers %d", ErrRefused, status)
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests:
		return fmt.Errorf("GET /v2/ answers %d", status)
	}
	return nil
}
