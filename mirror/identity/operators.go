package identity

import (
	"crypto/subtle"
	"net/http"
	"strings"

	"dray/upstream/oci"
)

// Operators decides who may use the admin listener. The zero value lets everybody do everything.
type Operators struct {
	// Access authenticates operators. Its rules say who may [View] and who may [Operate]. Access may
	// be nil.
	Access *Access
	// Token, when not nil, returns a token. Everybody who sends the token may do everything.
	Token func() string
	// LocalOnly refuses requests that were not made on this machine, if both Access and Token are nil.
	LocalOnly bool
}

// Authorise returns the operator who sent a request, or an error if this operator may not perform
// the action. The action is View or Operate. Authorise returns the errors of [Policy.Authorise]. An
// operator who sends the Token has no name.
func (o *Operators) Authorise(r *http.Request, action Action) (Principal, error) {
	if o.Token != nil {
		sent, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && subtle.ConstantTimeCompare([]byte(sent), []byte(o.Token())) == 1 {
			return Principal{}, nil
		}
	}
	if a, needs := o.Access, []Need{{Action: action}}; a != nil {
		if !hasCredentials(r) && a.anonymously(needs) {
			return Principal{}, nil
		}
		return a.authorise(r, needs)
	}
	if o.Token != nil {
		e := oci.ErrUnauthorized.With("the token is missing or wrong; send the one in admin.token_file as Authorization: Bearer")
		e.Challenge = []string{"Bearer"}
		return Principal{}, e
	}
	if o.LocalOnly && !local(r) {
		return Principal{}, oci.ErrDenied.With("requests from other machines are refused, except for health and metrics, until admin.auth or admin.token_file is configured")
	}
	return Principal{}, nil
}
