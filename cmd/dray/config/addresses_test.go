package config

import (
	"strings"
	"testing"
)

func TestSameAddress(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.1:81", false}, {"127.0.0.1:80", "[::1]:80", false}, {"127.0.0.1:80", "127.0.0.2:80", false},
		{"localhost:80", "127.0.0.1:80", true}, {"localhost:80", "[::1]:80", true}, {"localhost:80", "192.0.2.1:80", false},
		{":80", "127.0.0.1:80", true}, {"0.0.0.0:80", "[::1]:80", true}, {"[::]:80", "localhost:80", true}, {":0", ":0", false},
	} {
		if sameAddress(tc.a, tc.b) != tc.same || sameAddress(tc.b, tc.a) != tc.same {
			t.Errorf("%s and %s: not %v", tc.a, tc.b, tc.same)
		}
	}
}

// The advice names what to remove, and the problem does not show what can be a secret.
func TestCheckBaseURL(t *testing.T) {
	for _, tc := range []struct{ url, want string }{
		{"https://host", ""}, {"https://host/", ""}, {"https://host/path", "remove the path"},
		{"https://host#S3CR3T", "remove the query or fragment"}, {"https://host/path#S3CR3T", "remove the query or fragment"},
		{"https://host?S3CR3T", "remove the query or fragment"}, {"https://S3CR3T@host", "user"},
	} {
		var k Report
		checkBaseURL(&k, "url", tc.url)
		said := ""
		for _, p := range k.problems {
			said += p.Message
		}
		if (said == "") != (tc.want == "") || !strings.Contains(said, tc.want) || strings.Contains(said, "S3CR3T") {
			t.Errorf("%s: %q", tc.url, said)
		}
	}
}
