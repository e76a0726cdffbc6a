package identity

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"dray/upstream/oci"
)

// TestConfirm: another member says who the caller is, and this one what the caller may do.
func TestConfirm(t *testing.T) {
	push, pull, other := Need{Push, "team/app"}, Need{Pull, "team/app"}, Need{Pull, "other/app"}
	alice := []Rule{{Users: []string{"alice"}, Repositories: []string{"team/*"}, Actions: []Action{Pull, Push}}}
	everybody := []Rule{{Anonymous: true, Repositories: []string{"team/*"}, Actions: []Action{Pull}}}
	passwords, tokens := &HTPasswd{}, &Token{}
	for name, test := range map[string]struct {
		policy  Policy
		user    string
		granted []Need
		need    Need
		denied  bool
	}{
		"a rule":                         {Policy{Role: RoleRegistry, Access: &Access{Authenticator: passwords, Rules: alice}}, "alice", nil, push, false},
		"another user":                   {Policy{Role: RoleRegistry, Access: &Access{Authenticator: passwords, Rules: alice}}, "bob", []Need{push}, push, true},
		"another repository":             {Policy{Role: RoleRegistry, Access: &Access{Authenticator: passwords, Rules: alice}}, "alice", nil, other, true},
		"nobody":                         {Policy{Role: RoleRegistry, Access: &Access{Authenticator: passwords}}, "", nil, push, true},
		"nobody, by a rule":              {Policy{Role: RoleRegistry, Access: &Access{Authenticator: passwords, Rules: everybody}}, "", nil, pull, false},
		"a mirror":                       {Policy{Role: RoleMirror, Access: &Access{Authenticator: passwords, Rules: alice}}, "alice", nil, push, true},
		"a token":                        {Policy{Role: RoleRegistry, Access: &Access{Authenticator: tokens}}, "alice", []Need{push}, push, false},
		"a token, beyond what was shown": {Policy{Role: RoleRegistry, Access: &Access{Authenticator: tokens}}, "alice", []Need{push}, other, true},
		"a token, and a rule":            {Policy{Role: RoleRegistry, Access: &Access{Authenticator: tokens, Rules: alice}}, "bob", []Need{push}, push, true},
		"without an access":              {Policy{Role: RoleRegistry, AllowAnonymousPush: true}, "", nil, push, false},
		"without an access, elsewhere":   {Policy{Role: RoleRegistry}, "", nil, push, true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/v2/team/app/manifests/v1", http.NoBody)
		r.RemoteAddr = "192.0.2.1:1"
		failed := 0
		if test.policy.Access != nil {
			test.policy.Access.Failed = func(*http.Request, error) { failed++ }
		}
		who, err := test.policy.Confirm(r, Vouched{Principal: Principal{Name: test.user}, Granted: test.granted}, test.need)
		if errors.Is(err, oci.ErrDenied) != test.denied || (err != nil) != test.denied {
			t.Errorf("%s: %v, want denied %t", name, err, test.denied)
		}
		if err == nil && who.Name != test.user {
			t.Errorf("%s: the caller is %q", name, who.Name)
		}
		if counted := test.policy.Access != nil && test.policy.Role == RoleRegistry; counted && (failed == 1) != test.denied {
			t.Errorf("%s: %d refusals are noted", name, failed)
		}
	}
}
