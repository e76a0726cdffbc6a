package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"github.com/distribution/distribution/v3/registry/auth"

	"dray/upstream/oci"
)

// Principal is the caller of a request. The zero value is an anonymous caller.
type Principal struct {
	// Name is empty for an anonymous caller.
	Name string
}

// Need is a right that a request needs: the right to perform an action on a repository. Repository
// is the name that rules refer to, whichever form the client used (Name of route.Target).
type Need struct {
	Action     Action
	Repository string
}

// Authenticator authenticates the callers of requests.
type Authenticator interface {
	// Authenticate returns the caller of a request. If the credentials are limited to certain actions,
	// Authenticate refuses all other actions. If the caller is refused or unknown, the error is
	// [oci.ErrUnauthorized] with a challenge. Any other error means that the credentials could not be
	// checked.
	Authenticate(r *http.Request, needs []Need) (Principal, error)
}

// authorized calls an access controller of distribution. It returns the controller's error
// unchanged.
func authorized(c auth.AccessController, r *http.Request, needs []Need) (Principal, error) {
	want := make([]auth.Access, 0, len(needs))
	for _, n := range needs {
		what := auth.Resource{Type: "repository", Name: n.Repository}
		if n.Action.ofOperators() {
			what = auth.Resource{Type: "registry", Name: "admin"} // as in the scope registry:catalog:*
		}
		want = append(want, auth.Access{Resource: what, Action: string(n.Action)})
	}
	g, err := c.Authorized(r, want...)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Name: g.User.Name}, nil
}

// challenge converts the challenge of an access controller to a 401 with the WWW-Authenticate
// headers of the challenge. It only wraps any other error, for which the client then gets a 500.
func challenge(r *http.Request, err error) error {
	c, ok := errors.AsType[auth.Challenge](err)
	if !ok {
		return fmt.Errorf("authenticate: %w", err)
	}
	h := headerOnly{}
	c.SetHeaders(r, h)
	e := oci.ErrUnauthorized.Because(err)
	if hasCredentials(r) {
		e = e.With(wrongCredentials)
	}
	e.Challenge = http.Header(h).Values("WWW-Authenticate")
	return e
}

const wrongCredentials = "invalid credentials or insufficient permissions"

// headerOnly is a ResponseWriter that only records headers.
type headerOnly http.Header

func (h headerOnly) Header() http.Header       { return http.Header(h) }
func (headerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (headerOnly) WriteHeader(int)             {}

// anonymousBasic is the header that skopeo sends when it has no credentials: an empty user and an
// empty password.
var anonymousBasic = "Basic " + base64.StdEncoding.EncodeToString([]byte(":"))

func hasCredentials(r *http.Request) bool {
	h := r.Header.Get("Authorization")
	return h != "" && h != anonymousBasic
}
