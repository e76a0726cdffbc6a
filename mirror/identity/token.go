package identity

import (
	"fmt"
	"net/http"

	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/token" // registers itself
)

// Token is an [Authenticator] for the tokens of a token service.
type Token struct{ controller auth.AccessController }

// TokenOptions describe a token service (distribution, "Token Authentication Specification").
type TokenOptions struct {
	Realm, Service, Issuer string
	// RootCertBundle is a PEM file and JWKS a key set file; at least one is required.
	RootCertBundle, JWKS string
}

// NewToken returns a Token for a token service.
func NewToken(o TokenOptions) (*Token, error) {
	options := map[string]any{"realm": o.Realm, "service": o.Service, "issuer": o.Issuer}
	if o.RootCertBundle != "" {
		options["rootcertbundle"] = o.RootCertBundle
	}
	if o.JWKS != "" {
		options["jwks"] = o.JWKS
	}
	c, err := auth.GetAccessController("token", options)
	if err != nil {
		return nil, fmt.Errorf("token authentication: %w", err)
	}
	return &Token{controller: c}, nil
}

// Authenticate implements [Authenticator].
func (t *Token) Authenticate(r *http.Request, needs []Need) (Principal, error) {
	p, err := authorized(t.controller, r, needs)
	if err != nil {
		return Principal{}, challenge(r, err)
	}
	return p, nil
}
