package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"dray/mirror/fixture"
	"dray/upstream/ecrtest"
)

// asUser are the edits of stackConfig that give dray a name and a password at the hub.
func asUser(t *testing.T, password string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	fixture.Replace(t, file, password+"\n")
	return asUserOf(file)
}

// asUserOf are those edits for a file with the password.
func asUserOf(file string) []string {
	return []string{"  hosts: [docker.io]", "  hosts: [docker.io]\n  credentials: {username: robot, password_file: " + file + "}", "fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s"}
}

// robot are the users of a registry: robot, whose password is "right".
func robot() ecrtest.HubOptions {
	return ecrtest.HubOptions{Users: map[string]string{"robot": "right"}}
}

// startDialect is a stack before a registry with a dialect and the user robot, in place of the hub.
func startDialect(t *testing.T, d ecrtest.Dialect, log *recording, edits ...string) *stack {
	t.Helper()
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Other(), Dialect: d, Hub: robot()})
	return startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(), edits...)
}

// TestRefusedRepositoryIsDenied has registries refuse one repository in their own ways. That is no
// trouble with dray's credentials: the client is told, and an image that has become private is not
// served as an old answer.
func TestRefusedRepositoryIsDenied(t *testing.T) {
	for name, c := range map[string]struct {
		dialect ecrtest.Dialect
		user    bool
	}{
		"by the token endpoint 403":              {ecrtest.Dialect{Tokens: ecrtest.Tokens{TokenRefusal: 403}}, false},
		"by the token endpoint 401":              {ecrtest.Dialect{Tokens: ecrtest.Tokens{TokenRefusal: 401}}, false},
		"by the registry":                        {ecrtest.Dialect{}, false},
		"by the registry Basic offered first":    {ecrtest.Dialect{BasicFirst: true}, false},
		"by the token endpoint to a user 403":    {ecrtest.Dialect{Tokens: ecrtest.Tokens{TokenRefusal: 403}}, true},
		"by the token endpoint to a user 401":    {ecrtest.Dialect{Tokens: ecrtest.Tokens{TokenRefusal: 401}}, true},
		"by the registry to a user with a token": {ecrtest.Dialect{}, true},
		"by the registry to a user":              {ecrtest.Dialect{Basic: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			edits := []string{"fresh: 1h", "fresh: 0s", "not_found: 1h", "not_found: 0s"}
			if c.user {
				edits = asUser(t, "right")
			}
			s := startDialect(t, c.dialect, &recording{}, edits...)
			img := seed(t, s.hub, "team/app", "v1", 100)
			seed(t, s.hub, "team/other", "v1", 100)
			s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
			if c.dialect.TokenRefusal != 0 {
				r := s.do("GET", "/hub/v2/team/misspelt/manifests/v1", nil)
				s.checkError(r, "misspelt", 403, "DENIED")
			}

			d := c.dialect
			d.Private = []string{"team/app", "robot:team/app"}
			s.hub.SetDialect(d)
			s.hub.ExpireTokens()
			for range 2 {
				r := s.do("GET", "/hub/v2/team/app/manifests/v1", nil)
				if text := s.checkError(r, "private", 403, "DENIED"); !strings.Contains(text, "this mirror has no access to it") {
					t.Errorf("the client is told %q", text)
				}
			}
			s.want(200, "GET", "/hub/v2/team/other/manifests/v1", nil)

			d.Private = nil
			s.hub.SetDialect(d)
			if r := s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, img.manifest.Raw) || r.Header.Get("X-Cache") == "stale" {
				t.Errorf("public again: %v", r.Header)
			}
		})
	}
}

// TestRefusedPasswordIsNotRepeated has clients pull with a password that the registry refuses. What
// is held goes on as an old answer, and the account is not locked.
func TestRefusedPasswordIsNotRepeated(t *testing.T) {
	for name, d := range map[string]ecrtest.Dialect{"token": {}, "token refused by repository": {Tokens: ecrtest.Tokens{TokenRefusal: 401}}, "basic": {Basic: true}, "basic and open": {Basic: true, Open: true}} {
		t.Run(name, func(t *testing.T) {
			s := startDialect(t, d, &recording{}, asUser(t, "wrong")...)
			for i := range 3 {
				seed(t, s.hub, fmt.Sprintf("team/app%d", i), "v1", 100)
			}
			for i := range 30 {
				r := s.do("GET", fmt.Sprintf("/hub/v2/team/app%d/manifests/v1", i%3), nil)
				if text := s.checkError(r, "wrong password", 503, "UNAVAILABLE"); !strings.Contains(text, "refuses the credentials of this mirror") {
					t.Fatalf("the client is told %q", text)
				}
			}
			shown := s.hub.Count(ecrtest.KindToken)
			if d.Basic {
				shown = s.hub.Count(ecrtest.KindBase)
			}
			if shown > 3 {
				t.Errorf("the password was shown %d times:\n%s", shown, strings.Join(s.hub.Sequence(), "\n"))
			}
		})
	}
}

// TestCredentialsOfAnOpenRegistry has a registry where nobody needs credentials, and which tells
// nobody that there is more to be seen with them. It is down while dray starts.
func TestCredentialsOfAnOpenRegistry(t *testing.T) {
	s := startDialect(t, ecrtest.Dialect{Basic: true, Open: true, Private: []string{"team/app"}}, &recording{}, asUser(t, "right")...)
	seed(t, s.hub, "team/app", "v1", 100)
	seed(t, s.hub, "team/public", "v1", 100)
	down := s.hub.AddFault(ecrtest.Fault{Count: -1, Status: 503})
	s.greet(t.Context(), s.registries, slog.LevelWarn)
	s.hub.RemoveFault(down)
	s.want(200, "GET", "/hub/v2/team/public/manifests/v1", nil)
	s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
}

// TestBudgetCredentials counts what it costs to find out which credentials a registry wants, and
// whether a refusal is about them.
func TestBudgetCredentials(t *testing.T) {
	for name, c := range map[string]struct {
		basic                       bool
		first, again, denied, wrong kinds
	}{
		"token": {false, kinds{"base": 1, "manifest-get": 1, "token": 1}, kinds{"manifest-get": 1, "token": 1}, kinds{"token": 2}, kinds{"base": 1, "token": 2}},
		"basic": {true, kinds{"base": 2, "manifest-get": 1}, kinds{"manifest-get": 1}, kinds{"base": 1, "manifest-get": 1}, kinds{"base": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			d := ecrtest.Dialect{Tokens: ecrtest.Tokens{TokenRefusal: 403}, Basic: c.basic, Private: []string{"robot:team/hidden"}}
			s := startDialect(t, d, &recording{}, asUser(t, "right")...)
			for _, repo := range []string{"team/app", "team/other", "team/hidden"} {
				seed(t, s.hub, repo, "v1", 100)
			}
			s.hub.ResetCounters()
			s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
			spent(t, s.hub, c.first)
			s.want(200, "GET", "/hub/v2/team/other/manifests/v1", nil)
			spent(t, s.hub, c.again)
			s.want(403, "GET", "/hub/v2/team/hidden/manifests/v1", nil)
			spent(t, s.hub, c.denied)

			s = startDialect(t, d, &recording{}, asUser(t, "wrong")...)
			for range 3 {
				s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
			}
			spent(t, s.hub, c.wrong)
		})
	}
}
