package names

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
)

func rules(t *testing.T, c Config, n pipeline.Name) string {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.CheckName(t.Context(), n)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, f := range found {
		if f.What == "" || f.Fix == "" {
			t.Errorf("%+v says too little", f)
		}
		out = append(out, f.Rule)
	}
	return strings.Join(out, " ")
}

func TestRules(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	points := func(d digest.Digest, err error) func(context.Context) (digest.Digest, error) {
		return func(context.Context) (digest.Digest, error) { return d, err }
	}
	referrer := "sha256-" + a.Encoded()
	for i, tc := range []struct {
		c    Config
		n    pipeline.Name
		want string
	}{
		{Config{}, pipeline.Name{Repository: "x", Tag: "latest"}, ""},
		{Config{Repositories: []string{`team-[a-z]+/.+`}}, pipeline.Name{Repository: "team-a/app"}, ""},
		{Config{Repositories: []string{`team-[a-z]+/.+`}}, pipeline.Name{Repository: "my-team-a/app"}, "repository"},
		{Config{Repositories: []string{`a`, `b|c`}}, pipeline.Name{Repository: "bx"}, "repository"}, // the alternative does not end the anchor
		{Config{Forbidden: []string{"latest", "dev-*"}}, pipeline.Name{Tag: "latest"}, "forbidden-tag"},
		{Config{Forbidden: []string{"latest", "dev-*"}}, pipeline.Name{Tag: "dev-1/2"}, "forbidden-tag"},
		{Config{Forbidden: []string{"latest"}}, pipeline.Name{Tag: "latest2"}, ""},
		{Config{Forbidden: []string{"*"}}, pipeline.Name{Digest: a}, ""},      // by digest
		{Config{Forbidden: []string{"*"}}, pipeline.Name{Tag: referrer}, ""},  // a referrers tag
		{Config{Semver: true}, pipeline.Name{Tag: referrer + ".sig"}, ""},     // cosign's
		{Config{Semver: true}, pipeline.Name{Tag: "sha256-latest"}, "semver"}, // only looks like one
		{Config{Semver: true}, pipeline.Name{Tag: "1.2.3"}, ""},
		{Config{Semver: true}, pipeline.Name{Tag: "v1.2.3-rc.1"}, ""},
		{Config{Semver: true}, pipeline.Name{Tag: "1.2"}, "semver"},
		{Config{Semver: true}, pipeline.Name{Tag: "01.2.3"}, "semver"},
		{Config{Semver: true, Tags: []string{`1\..*`}}, pipeline.Name{Tag: "2"}, "semver tag"},
		{Config{Immutable: []string{"*"}}, pipeline.Name{Tag: "1", Digest: a}, ""}, // without Current
		{Config{Immutable: []string{"*"}}, pipeline.Name{Tag: "1", Digest: a, Current: points("", nil)}, ""},
		{Config{Immutable: []string{"*"}}, pipeline.Name{Tag: "1", Digest: a, Current: points(a, nil)}, ""},
		{Config{Immutable: []string{"*"}}, pipeline.Name{Tag: "1", Digest: a, Current: points(b, nil)}, "immutable"},
		{Config{Immutable: []string{"*"}, Except: []string{"1*"}}, pipeline.Name{Tag: "1", Digest: a, Current: points(b, nil)}, ""},
		{Config{Immutable: []string{"2*"}}, pipeline.Name{Tag: "1", Digest: a, Current: points(b, nil)}, ""},
		{Config{Immutable: []string{"*"}}, pipeline.Name{Tag: "1", Current: points("", errors.New("down"))}, "look up the tag: down"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got := rules(t, tc.c, tc.n); got != tc.want {
				t.Errorf("%+v of %+v: %q, want %q", tc.n, tc.c, got, tc.want)
			}
		})
	}
}

func TestBadExpressions(t *testing.T) {
	if _, err := New(Config{Repositories: []string{"("}, Tags: []string{"[", "ok"}}); err == nil || strings.Count(err.Error(), "regular expression") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestRevisionFollowsTheRules(t *testing.T) {
	a, _ := New(Config{Semver: true})
	b, _ := New(Config{})
	if a.Revision() == b.Revision() || a.Revision() == "" {
		t.Errorf("%q and %q", a.Revision(), b.Revision())
	}
}
