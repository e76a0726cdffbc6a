package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3/registry/auth"
	"golang.org/x/crypto/bcrypt"

	"dray/upstream/oci"
)

// hashed counts how often passwords are really checked.
type hashed struct {
	auth.AccessController
	n int
}

func (h *hashed) Authorized(r *http.Request, want ...auth.Access) (*auth.Grant, error) {
	h.n++
	return h.AccessController.Authorized(r, want...)
}

func as(user, password string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/team/app/manifests/v1", nil)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	return r
}

// A right password is hashed once a minute and not for every request; a wrong one never passes.
func TestPasswordsAreHashedOnce(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "alice:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a, err := NewHTPasswd(file, "dray")
		if err != nil {
			t.Fatal(err)
		}
		counted := &hashed{AccessController: a.controller}
		a.controller = counted
		for range 50 {
			if user, err := a.Authenticate(as("alice", "wonderland"), nil); err != nil || user.Name != "alice" {
				t.Fatal(user, err)
			}
		}
		if counted.n != 1 {
			t.Errorf("the password was hashed %d times", counted.n)
		}
		for range 3 {
			for _, r := range []*http.Request{as("alice", "wrong"), as("alice", ""), as("alice", "wonderland "), as("mallory", "wonderland")} {
				if user, err := a.Authenticate(r, nil); !errors.Is(err, oci.ErrUnauthorized) {
					t.Errorf("%s: %v, %v", r.Header.Get("Authorization"), user, err)
				}
			}
		}
		if counted.n != 13 {
			t.Errorf("passwords were hashed %d times, want 13", counted.n)
		}
		time.Sleep(verifiedFor - time.Second)
		_, _ = a.Authenticate(as("alice", "wonderland"), nil)
		if counted.n != 13 {
			t.Error("it was hashed again too early")
		}
		// A user who was removed from the file is refused after that time.
		time.Sleep(2 * time.Second)
		later := time.Now()
		if err := os.WriteFile(file, []byte("bob:x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, later, later); err != nil {
			t.Fatal(err)
		}
		if user, err := a.Authenticate(as("alice", "wonderland"), nil); !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("%v, %v", user, err)
		}
	})
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
		if _, err := NewHTPasswd(file, "dray"); (err == nil) != (tc.want == "") {
			t.Errorf("%q: started: %v", tc.text, err)
		}
	}

	// One that breaks while it is used is reported in the same way.
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := NewHTPasswd(file, "dray")
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
