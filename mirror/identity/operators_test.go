package identity

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"dray/upstream/oci"
)

// Rules say which operators may view and operate. A token allows both. Without either, everybody
// may do both, or this machine alone.
func TestOperators(t *testing.T) {
	rules := []Rule{
		{Users: []string{"ann"}, Actions: []Action{Operate}},
		{Users: []string{"bob"}, Actions: []Action{View, Pull}, Repositories: []string{"*"}},
		{Users: []string{"carl"}, Actions: []Action{Pull, Push, Delete}, Repositories: []string{"*"}},
	}
	access := &Access{Authenticator: byName{}, Rules: rules}
	public := &Access{Authenticator: byName{}, Rules: append([]Rule{{Anonymous: true, Actions: []Action{View}}}, rules...)}
	token := func() string { return "a token" }
	const bearer, here, there = "Bearer a token", "127.0.0.1:1", "192.0.2.1:1"
	for name, test := range map[string]struct {
		operators     Operators
		from          string
		user          string
		authorization string
		forwarded     bool
		view, operate error
	}{
		"everybody":                  {Operators{}, there, "", "", false, nil, nil},
		"this machine":               {Operators{LocalOnly: true}, here, "", "", false, nil, nil},
		"this machine, by a proxy":   {Operators{LocalOnly: true}, here, "", "", true, oci.ErrDenied, oci.ErrDenied},
		"another machine":            {Operators{LocalOnly: true}, there, "", "", false, oci.ErrDenied, oci.ErrDenied},
		"another machine, any user":  {Operators{LocalOnly: true}, there, "ann", "", false, oci.ErrDenied, oci.ErrDenied},
		"a token":                    {Operators{Token: token, LocalOnly: true}, there, "", bearer, false, nil, nil},
		"no token":                   {Operators{Token: token}, here, "", "", false, oci.ErrUnauthorized, oci.ErrUnauthorized},
		"a wrong token":              {Operators{Token: token}, here, "", "Bearer a tokem", false, oci.ErrUnauthorized, oci.ErrUnauthorized},
		"the token as a password":    {Operators{Token: token}, here, "a token", "", false, oci.ErrUnauthorized, oci.ErrUnauthorized},
		"ann":                        {Operators{Access: access}, there, "ann", "", false, nil, nil},
		"bob":                        {Operators{Access: access}, there, "bob", "", false, nil, oci.ErrDenied},
		"carl":                       {Operators{Access: access}, here, "carl", "", false, oci.ErrDenied, oci.ErrDenied},
		"mallory":                    {Operators{Access: access}, here, "mallory", "", false, oci.ErrUnauthorized, oci.ErrUnauthorized},
		"nobody":                     {Operators{Access: access}, here, "", "", false, oci.ErrUnauthorized, oci.ErrUnauthorized},
		"nobody, where all may view": {Operators{Access: public}, there, "", "", false, nil, oci.ErrUnauthorized},
		"a token beside users":       {Operators{Access: access, Token: token}, there, "", bearer, false, nil, nil},
		"ann beside a token":         {Operators{Access: access, Token: token}, there, "ann", "", false, nil, nil},
		"ann without rules":          {Operators{Access: &Access{Authenticator: byName{}}}, here, "ann", "", false, oci.ErrDenied, oci.ErrDenied},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
		r.RemoteAddr = test.from
		if test.user != "" {
			r.SetBasicAuth(test.user, "password")
		}
		if test.authorization != "" {
			r.Header.Set("Authorization", test.authorization)
		}
		if test.forwarded {
			r.Header.Set("X-Forwarded-For", "127.0.0.1")
		}
		for action, want := range map[Action]error{View: test.view, Operate: test.operate} {
			who, err := test.operators.Authorise(r, action)
			if !errors.Is(err, want) || err == nil != (want == nil) {
				t.Errorf("%s: %s: %v, want %v", name, action, err, want)
			}
			if err == nil && test.operators.Access != nil && who.Name != test.user {
				t.Errorf("%s is taken for %q", name, who.Name)
			}
		}
	}
}
