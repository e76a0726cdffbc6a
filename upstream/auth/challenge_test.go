package auth

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	hub := Challenge{Scheme: "bearer", Params: map[string]string{
		"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/alpine:pull",
	}}
	ecr := Challenge{Scheme: "basic", Params: map[string]string{
		"realm": "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/", "service": "ecr.amazonaws.com",
	}}
	for name, c := range map[string]struct {
		header []string
		want   []Challenge
	}{
		"none":  {nil, nil},
		"empty": {[]string{""}, nil},
		"docker hub": {
			[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`},
			[]Challenge{hub},
		},
		"ecr": {[]string{`Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`}, []Challenge{ecr}},
		"two in one value": {
			[]string{`Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple"`}, // the example of RFC 9110
			[]Challenge{
				{Scheme: "newauth", Params: map[string]string{"realm": "apps", "type": "1", "title": `Login to "apps"`}},
				{Scheme: "basic", Params: map[string]string{"realm": "simple"}},
			},
		},
		"two values": {[]string{"Negotiate", `Basic realm="x"`}, []Challenge{
			{Scheme: "negotiate", Params: map[string]string{}}, {Scheme: "basic", Params: map[string]string{"realm": "x"}},
		}},
		"token68": {[]string{`Negotiate YII+/==, Basic realm="x"`}, []Challenge{
			{Scheme: "negotiate", Token68: "YII+/==", Params: map[string]string{}},
			{Scheme: "basic", Params: map[string]string{"realm": "x"}},
		}},
		"bare schemes": {[]string{"Negotiate, NTLM"}, []Challenge{
			{Scheme: "negotiate", Params: map[string]string{}}, {Scheme: "ntlm", Params: map[string]string{}},
		}},
		"comma in quotes":   {[]string{`Bearer scope="repository:a:pull,push"`}, []Challenge{{Scheme: "bearer", Params: map[string]string{"scope": "repository:a:pull,push"}}}},
		"blanks":            {[]string{` ,, Bearer	realm = "x" ,, service= y `}, []Challenge{{Scheme: "bearer", Params: map[string]string{"realm": "x", "service": "y"}}}},
		"no quotes":         {[]string{`Bearer realm=https://a/t?x,service=s`}, []Challenge{{Scheme: "bearer", Params: map[string]string{"realm": "https://a/t?x", "service": "s"}}}},
		"twice":             {[]string{`Bearer realm="a",Realm="b"`}, []Challenge{{Scheme: "bearer", Params: map[string]string{"realm": "a"}}}},
		"param first":       {[]string{`realm="a"`}, nil},
		"unclosed":          {[]string{`Bearer realm="a",service="b`}, []Challenge{{Scheme: "bearer", Params: map[string]string{"realm": "a"}}}},
		"ends in backslash": {[]string{`Bearer realm="a\`}, []Challenge{{Scheme: "bearer", Params: map[string]string{}}}},
		"garbage":           {[]string{"\x00\xff"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ParseChallenges(c.header)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// FuzzParseChallenges checks that nothing panics and that what was read is written so that it is
// read again.
func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`, `Basic realm="x", charset="UTF-8", Bearer realm="y"`,
		"Negotiate abc==, NTLM", `A b="\"\\", c=`, "a b=, c d", "a x, b=c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		read := ParseChallenges([]string{s})
		var lines []string
		for _, c := range read {
			lines = append(lines, c.String())
		}
		again := ParseChallenges([]string{strings.Join(lines, ", ")})
		if diff := cmp.Diff(read, again); diff != "" {
			t.Errorf("%q written as %q (-read +again):\n%s", s, lines, diff)
		}
	})
}
