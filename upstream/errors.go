package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

var (
	// ErrUnreachable: the registry, its token endpoint or its storage gave no answer (refused,
	// reset, timed out, TLS), or the breaker did not let the request pass.
	ErrUnreachable = errors.New("upstream unreachable")
	// ErrCredentials: the registry refuses dray's own credentials, or dray has none. If the
	// registry accepts the identity but not the action, the error is oci.ErrDenied.
	ErrCredentials = auth.ErrRefused
	// ErrCorrupt: the answer does not match the request (wrong digest, wrong range, no manifest), or
	// is a redirect that dray must not follow.
	ErrCorrupt = errors.New("corrupt answer from the upstream")
	// ErrStorage: the registry redirected the request to its storage, and the storage answered with
	// an error status.
	ErrStorage = errors.New("upstream storage refused the redirect")
	// ErrRepositoryMissing: the repository of a write does not exist.
	ErrRepositoryMissing = errors.New("repository does not exist at the upstream")
	// ErrPartsMissing: the registry refuses a manifest because the registry lacks a blob or a manifest
	// that the refused manifest names.
	ErrPartsMissing = errors.New("the registry does not have all parts of the manifest")
	// ErrReferrersUnsupported: the registry has no referrers call.
	ErrReferrersUnsupported = errors.New("the upstream does not support referrers")
	// errUnauthorized: the registry answered with 401. The same request may succeed later, with
	// another authorization.
	errUnauthorized = errors.New("the registry wants another authorization")
	// ErrBusy: dray did not send a request. The request would have waited too long, the Limiter's
	// queue was full, or the request was background work and the remaining pull quota is reserved for
	// clients.
	ErrBusy = errors.New("upstream rate limit reached")
)

// storageError marks a failure of a host that the registry has redirected to. Its status is 0 if
// there was no answer.
type storageError struct {
	error
	host   string
	status int
}

func (e storageError) Unwrap() error { return e.error }

// refuses reports whether the host refused the object in a way that another try would not change.
func (e storageError) refuses() bool { return e.status/100 == 4 && !temporary(e.status) }

// temporary reports whether a status says nothing about the content, so that another try may get
// another status.
func temporary(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusMisdirectedRequest:
		return true
	}
	return status >= http.StatusInternalServerError
}

// Refused reports whether an error says that the registry refuses the content, and would refuse it
// again. The status of such an error is a 4xx, and the error is not Transient.
func Refused(err error) bool {
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e.Status >= 400 && e.Status < 500 && !Transient(err)
}

// Transient reports whether an error says nothing about the content: the registry is unreachable,
// throttles, fails, refuses the credentials, or sends something other than the requested content,
// such as the login page of a proxy. A caller that has an older answer may use the older answer
// instead.
func Transient(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrCredentials) {
		return true
	}
	e, ok := errors.AsType[*oci.Error](err)
	return ok && temporary(e.Status)
}

// transportError converts err, the error of a round trip that got no answer, to an error of this
// package.
func (c *Client) transportError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			return fmt.Errorf("%s: %w: %w", c.o.Name, context.Canceled, cause)
		}
		return fmt.Errorf("%s: %w", c.o.Name, context.Canceled)
	}
	if e, ok := errors.AsType[*oci.Error](err); ok { // a wrapper of the transport has made this error
		return e
	}
	if errors.Is(err, errReach) {
		return unusable(oci.ErrUnknown.With("the upstream registry %s leads to an address that this mirror does not connect to", c.o.Name), err)
	}
	if errors.Is(err, auth.ErrRefused) {
		return credentialError(c.o.Name, err)
	}
	if errors.Is(err, auth.ErrDenied) {
		return denied(c.o.Name, "its token endpoint refuses the repository", err)
	}
	e := oci.ErrUnavailable.With("the upstream registry %s cannot be reached%s", c.o.Name, c.o.unknownHost(err))
	if te, ok := errors.AsType[*auth.TokenError](err); ok {
		e = oci.ErrUnavailable.With("the token endpoint of the upstream registry %s does not answer", c.o.Name)
		e.RetryAfter = te.RetryAfter
	}
	return e.Because(fmt.Errorf("%w: %w", ErrUnreachable, err))
}

// unknownHost returns a text to append to an error message. The text says that a host has no
// address; it is "" if err has another cause.
func (o Options) unknownHost(err error) string {
	name, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok || !name.IsNotFound:
		return ""
	case name.Name != o.Base.Hostname():
		return fmt.Sprintf(", because %s has no address", name.Name)
	}
	return fmt.Sprintf(", because %s has no address; look at the name of the registry%s", name.Name, o.Quirks.UnknownHostHint)
}

func credentialError(registry string, cause error) error {
	text := "the upstream registry %s refuses the credentials of this mirror"
	if errors.Is(cause, auth.ErrMissing) {
		text = "this mirror has no credentials for the upstream registry %s"
	}
	if !errors.Is(cause, ErrCredentials) {
		cause = fmt.Errorf("%w: %w", ErrCredentials, cause)
	}
	return oci.ErrUnavailable.With(text, registry).Because(cause)
}

// The function denied returns the error for content to which the identity of this mirror has no
// access.
func denied(registry, why string, cause error) error {
	return oci.ErrDenied.With("the repository does not exist at %s, or this mirror has no access to it: %s", registry, why).Because(cause)
}

// corrupt returns an error for an answer that must not be used.
func (c *Client) corrupt(format string, args ...any) error {
	return mismatch(c.o.Name, fmt.Errorf(format, args...))
}

// mismatch returns the error for content that a registry sent and that dray must not use. The
// parameter cause is the reason.
func mismatch(registry string, cause error) error {
	return unusable(oci.ErrUnknown.With("the upstream registry %s sent content that does not match the request", registry), cause)
}

// unusable returns e as the error for an answer that must not be used. The status becomes 502, and
// the error matches both ErrCorrupt and cause.
func unusable(e *oci.Error, cause error) error {
	return e.WithStatus(http.StatusBadGateway).Because(fmt.Errorf("%w: %w", ErrCorrupt, cause))
}

// answerError returns the error for an answer of the registry that is not the expected success.
func (c *Client) answerError(resp *http.Response) error {
	defer abortAfter(resp, answerTimeout).Stop()
	e := oci.DecodeError(resp)
	if a, ok := resp.Body.(*answer); ok && a.permit != nil && a.permit.pausing {
		a.permit.recordError(e.Message)
		return e.Because(errPaused)
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return denied(c.o.Name, e.Message, fmt.Errorf("%w: %s", errUnauthorized, e.Error()))
	case http.StatusForbidden, http.StatusBadRequest:
		text := strings.ToLower(e.Message)
		for _, t := range c.o.Quirks.CredentialTexts {
			if strings.Contains(text, t) {
				return credentialError(c.o.Name, errors.New(e.Error()))
			}
		}
	}
	if e.Status == http.StatusForbidden {
		text := strings.ToLower(e.Message)
		e.Operator = slices.ContainsFunc(c.o.Quirks.PermissionTexts, func(t string) bool { return strings.Contains(text, t) })
	}
	if e.Status < http.StatusBadRequest { // a success or redirect that the caller does not expect
		return c.corrupt("status %d", e.Status)
	}
	return e
}
