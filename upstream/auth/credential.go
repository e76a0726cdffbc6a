package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// ErrRefused reports that the registry or its token endpoint does not accept the configured
// credentials, or that there are none to be had. It never stands for a refusal of what an accepted
// identity wanted to do.
var ErrRefused = errors.New("upstream credentials refused")

// ErrMissing reports, beside ErrRefused, that nobody was asked, because there are no credentials to
// be had.
var ErrMissing = fmt.Errorf("%w: none to be had", ErrRefused)

// TokenError is a failed token request. errors.Is(err, ErrRefused) holds when the endpoint refused
// the credentials.
type TokenError struct {
	// Realm is the token endpoint without its query.
	Realm string
	// Status is the HTTP status of the answer, 0 when there was none.
	Status int
	// RetryAfter is how long the endpoint asked to be left alone, 0 when it did not say.
	RetryAfter time.Duration
	// Err is the cause.
	Err error
}

// Error names the endpoint and the cause.
func (e *TokenError) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("token from %s: status %d: %v", e.Realm, e.Status, e.Err)
	}
	return fmt.Sprintf("token from %s: %v", e.Realm, e.Err)
}

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// Credential is what dray shows to one registry. The zero value is the anonymous user.
type Credential struct {
	// Username and Password are the parts of HTTP Basic authentication.
	Username string
	Password Secret
	// Preemptive sends Basic at once, without waiting for a challenge.
	Preemptive bool
	// Issued and Expires bound the life of a temporary password; zero when not known.
	Issued, Expires time.Time
	// Invalidate, when not nil, says that the registry refused this password, so that the next call
	// for credentials obtains another if it can. It must be safe to call more than once and
	// concurrently.
	Invalidate func()
}

// Anonymous reports whether there is nothing to show.
func (c Credential) Anonymous() bool { return c.Username == "" && c.Password == "" }

func (c Credential) basic() Secret {
	plain := c.Username + ":" + c.Password.Reveal()
	return Secret("Basic " + base64.StdEncoding.EncodeToString([]byte(plain)))
}

// Credentials gives the credential for a registry host. It is called for every request that needs
// one, so it must answer from memory where it can. An error means that no credential can be had
// now.
type Credentials func(ctx context.Context, host string) (Credential, error)

// Static is a Credentials that always gives the same name and password.
func Static(username string, password Secret) Credentials {
	return func(context.Context, string) (Credential, error) {
		return Credential{Username: username, Password: password}, nil
	}
}
