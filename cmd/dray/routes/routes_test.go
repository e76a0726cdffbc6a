package routes

import (
	"testing"

	"dray/cmd/dray/config"
)

// TestNames: operators may name images as clients of any listener do; a name without an upstream
// belongs to the first upstream of the first listener.
func TestNames(t *testing.T) {
	c := config.Config{
		Upstreams: []config.Upstream{
			{Name: "ecr", Prefixes: []string{"aws"}},
			{Name: "hub", Hosts: []string{"docker.io"}, DefaultNamespace: "library", Repositories: config.Repositories{Deny: []string{"secret/*"}}},
		},
		Listeners: []config.Listener{
			{Address: "127.0.0.1:5000", Upstreams: []string{"hub"}, ExternalURL: "https://dray.example"},
			{Upstreams: []string{"ecr", "hub"}},
		},
	}
	names := NamesOf(c)
	for text, want := range map[string]string{
		"alpine:3":                      "hub/library/alpine:3",
		"docker.io/library/alpine:3":    "hub/library/alpine:3",
		"aws/team/app:1":                "ecr/team/app:1",
		"127.0.0.1:5000/aws/team/app:1": "ecr/team/app:1",
		"dray.example/alpine:3":         "hub/library/alpine:3",
		"secret/app:1":                  "hub/secret/app:1", // clients may not name it
		"Alpine:3":                      "",
		"sha256:12":                     "",
	} {
		n, err := names.Parse(text)
		got := ""
		if err == nil {
			got = n.Upstream + "/" + n.Repo + ":" + n.Reference.Tag
		}
		if got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	if got := Hosts(Of(c, c.Listeners[0])); len(got) != 2 || got[0] != "dray.example" || got[1] != "docker.io" {
		t.Errorf("hosts %q", got)
	}
}
