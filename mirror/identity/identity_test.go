package identity

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func as(user, password string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/team/app/manifests/v1", nil)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	return r
}

// Patterns are whole names; what looks like an expression is none.
func TestRulePatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "team/app", true}, {"team/*", "team/app", true}, {"team/*", "team/a/b", true}, {"team/*", "teams/app", false}, {"team/*", "team", false},
		{"team/app", "team/app", true}, {"team/app", "team/app2", false}, {"team/app", "x/team/app", false}, {"team.app", "teamxapp", false},
		{"*/app", "a/b/app", true}, {"a|b", "a", false}, {"team/*-dev", "team/x-dev", true}, {"team/*-dev", "team/x-dev2", false}, {"", "team", false},
	} {
		alice, a := Principal{Name: "alice"}, &Access{Rules: []Rule{{Users: []string{"alice"}, Repositories: []string{tc.pattern}, Actions: []Action{Pull}}}}
		if got := a.allows(alice, Need{Pull, tc.name}); got != tc.want {
			t.Errorf("%q on %q: %t", tc.pattern, tc.name, got)
		}
		if a.allows(alice, Need{Push, tc.name}) || a.allows(Principal{Name: "bob"}, Need{Pull, tc.name}) || a.allows(Principal{}, Need{Pull, tc.name}) {
			t.Errorf("%q on %q: somebody else, or something else, is allowed", tc.pattern, tc.name)
		}
	}
}

// A password file is looked at as a whole before it is used, and what is wrong with it
// is told without what stands in it.
func TestCheckHTPasswd(t *testing.T) {
	sound, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	good := "ci:" + string(sound) + "\n"
	for _, tc := range []struct{ text, want string }{
		{good, ""},
		{"# users\n\n" + good, ""},
		{good + "hunter2\n" + good, "line 2"},
		{"ci:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n" + "dev:hunter2\n", "line 1, 2"},
		{":" + string(sound), "line 1"},
	} {
		file := filepath.Join(t.TempDir(), "htpasswd")
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckHTPasswd(file)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%q: %v", tc.text, err)
		case tc.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%q: %v, want %s", tc.text, err, tc.want)
		}
		if _, err := NewHTPasswd(file, "dray", nil); (err == nil) != (tc.want == "") {
			t.Errorf("%q: started: %v", tc.text, err)
		}
	}

	// One that breaks while it is used is reported in the same way.
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := NewHTPasswd(file, "dray", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(good+"hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(as("ci", "pw"), nil); err == nil || !strings.Contains(err.Error(), "line 2") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("broken while it is used: %v", err)
	}
}
