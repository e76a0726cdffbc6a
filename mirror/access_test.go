package mirror

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

	"dray/upstream/oci"

	"github.com/distribution/distribution/v3/registry/auth"
	"golang.org/x/crypto/bcrypt"
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
		a, err := NewHTPasswd(file, "dray", nil)
		if err != nil {
			t.Fatal(err)
		}
		counted := &hashed{AccessController: a.controller}
		a.controller = counted
		for range 50 {
			if user, err := a.authenticate(as("alice", "wonderland"), nil); err != nil || user != "alice" {
				t.Fatal(user, err)
			}
		}
		if counted.n != 1 {
			t.Errorf("the password was hashed %d times", counted.n)
		}
		for range 3 {
			for _, r := range []*http.Request{as("alice", "wrong"), as("alice", ""), as("alice", "wonderland "), as("mallory", "wonderland")} {
				if user, err := a.authenticate(r, nil); !errors.Is(err, oci.ErrUnauthorized) {
					t.Errorf("%s: %q, %v", r.Header.Get("Authorization"), user, err)
				}
			}
		}
		if counted.n != 13 {
			t.Errorf("passwords were hashed %d times, want 13", counted.n)
		}
		time.Sleep(verifiedFor - time.Second)
		_, _ = a.authenticate(as("alice", "wonderland"), nil)
		if counted.n != 13 {
			t.Error("it was hashed again too early")
		}
		// Who was taken out of the file is out after that time.
		time.Sleep(2 * time.Second)
		later := time.Now()
		if err := os.WriteFile(file, []byte("bob:x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, later, later); err != nil {
			t.Fatal(err)
		}
		if user, err := a.authenticate(as("alice", "wonderland"), nil); !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("%q, %v", user, err)
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
		a, err := newAccess(&Access{}, []Rule{{Users: []string{"alice"}, Repositories: []string{tc.pattern}, Actions: []Action{Pull}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := a.allows("alice", tc.name, Pull); got != tc.want {
			t.Errorf("%q on %q: %t", tc.pattern, tc.name, got)
		}
		if a.allows("alice", tc.name, Push) || a.allows("bob", tc.name, Pull) || a.allows("", tc.name, Pull) {
			t.Errorf("%q on %q: somebody else, or something else, is allowed", tc.pattern, tc.name)
		}
	}
}

// FuzzMatches: a list of entity tags matches when the tag is in it.
func FuzzMatches(f *testing.F) {
	f.Add(`"a", W/"b"`)
	f.Add(`*`)
	f.Add(`,,"`)
	f.Fuzz(func(t *testing.T, header string) {
		const etag = `"sha256:abc"`
		if matches(header, etag) && !strings.Contains(header, etag) && !strings.Contains(header, "*") {
			t.Fatalf("%q matches", header)
		}
		if !matches(header+","+etag, etag) || !matches("W/"+etag+" , "+header, etag) {
			t.Fatalf("the tag after %q does not match", header)
		}
	})
}
