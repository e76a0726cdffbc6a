package meta

import (
	"slices"
	"strings"
	"testing"
)

// FuzzPath checks that components can be read back, so that no two lists of
// components share a key, and that a longer list is found below a shorter one.
func FuzzPath(f *testing.F) {
	f.Add("docker.io", "library/nginx", "latest")
	f.Add("a/b", "", "c")
	f.Add("a", "b/", "/c")
	f.Add("%2F", "%", "%25")
	f.Add("..", ".", "\x00\xff")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		key := path(tagSpace, a, b, c)
		got, ok := split(tagSpace, key, 3)
		if !ok || !slices.Equal(got, []string{a, b, c}) {
			t.Fatalf("split(%q) = %q, %v; want %q", key, got, ok, []string{a, b, c})
		}
		if !strings.HasPrefix(key, path(tagSpace, a, b, "")) {
			t.Fatalf("%q is not below its parent", key)
		}
		if strings.HasPrefix(path(tagSpace, a+"x", b, c), path(tagSpace, a, "")) {
			t.Fatalf("%q is below its neighbour", a+"x")
		}
	})
}

func TestAcceptSumIsAlwaysAHash(t *testing.T) {
	sum := acceptSum("application/json")
	if acceptSum(sum) == sum || len(sum) != 32 || acceptSum("") == acceptSum("*/*") {
		t.Fatalf("sum %q can be chosen by a client", sum)
	}
}
