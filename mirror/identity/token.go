package identity

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/token" // registers itself

	"dray/mirror/reread"
)

// Token is an [Authenticator] for the tokens of a token service.
type Token struct {
	controller *reread.Value[auth.AccessController]
}

// TokenOptions describe a token service (distribution, "Token Authentication Specification").
type TokenOptions struct {
	Realm, Service, Issuer string
	// RootCertBundle is the path of a PEM file, and JWKS the path of a JSON Web Key Set. At least one
	// of the two is required.
	RootCertBundle, JWKS string
}

// NewToken returns a Token for a token service. The files of o are read again when they change. log
// may be nil.
func NewToken(o TokenOptions, log *slog.Logger) (*Token, error) {
	options := map[string]any{"realm": o.Realm, "service": o.Service, "issuer": o.Issuer}
	var files []string
	for option, file := range map[string]string{"rootcertbundle": o.RootCertBundle, "jwks": o.JWKS} {
		if file != "" {
			options[option] = file
			files = append(files, file)
		}
	}
	// The package reread reads the files, and then the controller reads them itself. If a file changes
	// between the two reads, the next request notices the change and makes a new controller.
	c, err := reread.New(log, func([][]byte) (auth.AccessController, error) { return auth.GetAccessController("token", options) }, files...)
	if err != nil {
		return nil, fmt.Errorf("token authentication: %w", err)
	}
	return &Token{controller: c}, nil
}

// Authenticate implements [Authenticator].
func (t *Token) Authenticate(r *http.Request, needs []Need) (Principal, error) {
	controller, _ := t.controller.Get()
	p, err := authorized(controller, r, needs)
	if err != nil {
		return Principal{}, challenge(r, err)
	}
	return p, nil
}
