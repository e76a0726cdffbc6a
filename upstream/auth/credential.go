package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// ErrRefused reports that the registry or its token endpoint refuses the configured credentials, or
// that there are no credentials. It does not report that an accepted identity lacks a right.
var ErrRefused = errors.New("upstream credentials refused")

// ErrDenied reports that the token endpoint grants this identity no token for a repository.
// ghcr.io also refuses a token, with 403 or 401, for a repository that does not exist.
var ErrDenied = errors.New("no token for the repository")

// ErrMissing reports that no request with credentials was sent, because there are none. It matches
// ErrRefused.
var ErrMissing = fmt.Errorf("%w: no credentials", ErrRefused)

// TokenError is a failed token request. It matches ErrRefused if the endpoint refuses the
// credentials, and ErrDenied if the endpoint refuses the repository.
type TokenError struct {
	// Realm is the token endpoint without its query.
	Realm string
	// Status is the HTTP status of the answer, 0 if there was none.
	Status int
	// RetryAfter is the Retry-After of the answer, 0 if there was none.
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

// Credential is a name and password for one registry. The zero value is the anonymous user.
type Credential struct {
	// Username and Password are the parts of HTTP Basic authentication.
	Username string
	Password Secret
	// Preemptive says to send Basic at once, without waiting for a challenge.
	Preemptive bool
	// Issued and Expires bound the life of a temporary password; zero if unknown.
	Issued, Expires time.Time
	// Invalidate, when not nil, is called when the registry has refused this password. The next call
	// of Credentials then returns another password, if there is one. Invalidate may be called more
	// than once, and concurrently.
	Invalidate func()
}

// Anonymous reports whether the name and the password are empty.
func (c Credential) Anonymous() bool { return c.Username == "" && c.Password == "" }

func (c Credential) basic() Secret {
	plain := c.Username + ":" + c.Password.Reveal()
	return Secret("Basic " + base64.StdEncoding.EncodeToString([]byte(plain)))
}

// Credentials returns the credential for a registry host. It is called for every request that needs
// a credential, so it should answer from memory. An error means that there is no credential now.
type Credentials func(ctx context.Context, host string) (Credential, error)

// Static returns a Credentials that always returns the same name and password.
func Static(username string, password Secret) Credentials {
	return func(context.Context, string) (Credential, error) {
		return Credential{Username: username, Password: password}, nil
	}
}
