package meta

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
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

// The keys are those that other mirrors on the same store write and read.
func TestKeys(t *testing.T) {
	const hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	d := digest.Digest("sha256:" + hex)
	tag, in := TagKey{Upstream: "my ecr", Repo: "team/app", Tag: "v1", Accept: "x"}, digestKey{"my ecr", "team/app", d}
	for key, want := range map[string][2]string{ // with the upstream that it is about
		tag.key():       {"v1/tag/my%20ecr/team%2Fapp/v1/2d711642b726b04401627ca9fbac32f5", "my ecr"},
		tag.forgetKey(): {"v1/forgot/my%20ecr/team%2Fapp/v1", "my ecr"},
		AbsentKey{"my ecr", "team/app", d, KindBlob, "x"}.key():        {"v1/absent/my%20ecr/team%2Fapp/sha256:" + hex + "/blob/2d711642b726b04401627ca9fbac32f5", "my ecr"},
		AbsentKey{"my ecr", "team/app", d, KindBlob, ""}.returnedKey(): {"v1/return/my%20ecr/team%2Fapp/sha256:" + hex, "my ecr"},
		in.in(linkSpace):                                   {"v1/link/my%20ecr/team%2Fapp/sha256:" + hex, "my ecr"},
		in.in(presenceSpace):                               {"v1/known/my%20ecr/team%2Fapp/sha256:" + hex, "my ecr"},
		in.in(transitSpace):                                {"v1/transit/my%20ecr/team%2Fapp/sha256:" + hex, "my ecr"},
		path(uploadSpace, "ID"):                            {"v1/upload/ID", ""},
		in.in(touchSpace):                                  {"v1/touch/my%20ecr/team%2Fapp/sha256:" + hex, "my ecr"},
		homeKey("my ecr", d):                               {"v1/home/my%20ecr/sha256:" + hex, "my ecr"},
		verdictKey(d, "ecr", "1/2"):                        {"v1/verdict/sha256:" + hex + "/ecr/1%2F2", ""},
		baseKey([]digest.Digest{d}):                        {"v1/base/" + digest.FromString(d.String()+"\n").Encoded(), ""},
		upstreamPrefix(linkSpace, "my ecr") + "team%2Fapp": {"v1/link/my%20ecr/team%2Fapp", "my ecr"},
	} {
		upstream, ok := upstreamOf(key)
		if key != want[0] || upstream != want[1] || ok != (want[1] != "") {
			t.Errorf("%s is about %q; want %q", key, upstream, want)
		}
	}
	if got, ok := parseTagKey(tag.key()); !ok || got.Upstream != tag.Upstream || got.Repo != tag.Repo || got.Tag != tag.Tag {
		t.Errorf("read as %+v", got)
	}
	if got, ok := digestKeyIn(linkSpace)(in.in(linkSpace)); !ok || got != in {
		t.Errorf("read as %+v", got)
	}
}
