package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// prefixed makes a stack whose ECR has everything below team, however that is written.
func prefixed(t *testing.T, edits ...string) *stack {
	t.Helper()
	return startBefore(t, ecrtest.Start(t, ecrtest.Options{BlobMounting: true}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		append([]string{"kind: ecr", "kind: ecr\n  repository_prefix: team/"}, edits...)...)
}

// below checks that the registry was asked for nothing but repositories below a prefix, and at
// least once by each of the given kinds.
func below(t *testing.T, r *ecrtest.Running, prefix string, kinds ...ecrtest.Kind) {
	t.Helper()
	<-r.Idle()
	for _, e := range r.Log() {
		if e.Surface == "registry" && e.Path != "/v2/" && !strings.HasPrefix(e.Path, "/v2/"+prefix+"/") {
			t.Errorf("%s %s", e.Method, e.Path)
		}
	}
	for _, k := range kinds {
		if r.Count(k) == 0 {
			t.Errorf("no %s:\n%s", k, strings.Join(r.Sequence(), "\n"))
		}
	}
	r.ResetCounters()
}

// Both spellings of a prefix mean the same names, which is what a pull-through cache rule needs.
func TestPrefixOfARule(t *testing.T) {
	for _, spelling := range []string{"docker-hub", "docker-hub/"} {
		t.Run(spelling, func(t *testing.T) {
			hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
			ecr := ecrtest.Start(t, ecrtest.Options{PullThrough: []ecrtest.PullThroughRule{{Prefix: "docker-hub", Upstream: hub.RegistryURL}}})
			s := startBefore(t, ecr, hub, t.TempDir(), "kind: ecr", "kind: ecr\n  default_namespace: library\n  repository_prefix: "+spelling)
			img := seed(t, hub, "library/alpine", "3", 5000)
			for _, name := range []string{"alpine", "library/alpine"} {
				if r := s.want(200, "GET", "/v2/"+name+"/manifests/3", nil); !bytes.Equal(r.body, img.manifest.Raw) {
					t.Errorf("%s: %s", name, r.body)
				}
				s.want(200, "GET", "/v2/"+name+"/blobs/"+img.layer.String(), nil)
			}
			below(t, ecr, "docker-hub/library", ecrtest.KindManifestGet, ecrtest.KindBlobGet)
			notice := "upstream ecr: because of repository_prefix, dray requests alpine as docker-hub/library/alpine."
			if notices := s.cfg.Notices(); !slices.Contains(notices, notice) {
				t.Errorf("notices %q", notices)
			}
		})
	}
}

// A push creates the repository below the prefix and goes to it. Later requests ask for it there,
// and clients never see the prefix.
func TestPrefixOfAPush(t *testing.T) {
	s := prefixed(t, "push: true", deleting+"\n  create_repositories: {names: ['team/.*']}")
	layer := layerOf(1, 5000)
	m := s.push("app", "v1", layer)
	s.ecr.CreateRepository("team/other")
	s.holds("team/app", "v1", m, layer)
	below(t, s.ecr, "team", ecrtest.KindUploadPut, ecrtest.KindManifestPut)
	if images := s.ecr.Images(); len(images) != 1 {
		t.Errorf("ECR has %+v", images)
	}
	// A mount from one repository to another.
	d := digest.FromBytes(layer)
	s.want(201, "POST", "/v2/other/blobs/uploads/?mount="+d.String()+"&from=app", nil)
	if !s.ecr.HasBlob("team/other", d) {
		t.Error("the layer is not in the other repository")
	}
	below(t, s.ecr, "team", ecrtest.KindMount)
	// A list has the client's name and links.
	pushDirectly(t, s.ecr, "team/app", "v2", layerOf(2, 50))
	r := s.want(200, "GET", "/v2/app/tags/list?n=1", nil)
	var list struct{ Name string }
	if err := json.Unmarshal(r.body, &list); err != nil || list.Name != "app" || !strings.HasPrefix(next(t, r), "/v2/app/tags/list?") {
		t.Errorf("%s, Link %s", r.body, r.Header.Get("Link"))
	}
	s.want(200, "GET", "/v2/app/referrers/"+m.Digest.String(), nil)
	below(t, s.ecr, "team", ecrtest.KindTags, ecrtest.KindReferrers)
	s.want(202, "DELETE", "/v2/app/manifests/v1", nil)
	if _, there := s.ecr.Image("team/app", "v1"); there {
		t.Error("the tag is there")
	}
}

// A push that is acknowledged before it is forwarded goes below the prefix as well.
func TestPrefixOfAQueuedPush(t *testing.T) {
	s := prefixed(t, acknowledging...)
	layer := layerOf(1, 5000)
	m := s.push("app", "v1", layer)
	s.forwarded()
	s.holds("team/app", "v1", m, layer)
	below(t, s.ecr, "team", ecrtest.KindManifestPut)
}

// A tag is asked for again, and an image is kept alive, below the prefix.
func TestPrefixInTheBackground(t *testing.T) {
	s := prefixed(t, "keep_alive: 0s", "keep_alive: 300ms", "fresh: 1h", "fresh: 1ms, revalidate: 1h")
	seed(t, s.ecr, "team/app", "v1", 1000)
	s.want(200, "GET", "/v2/app/manifests/v1", nil)
	<-s.ecr.Idle()
	s.ecr.ResetCounters()
	time.Sleep(2 * time.Millisecond)
	s.header(s.want(200, "GET", "/v2/app/manifests/v1", nil), "X-Cache", "updating")
	s.until(func() bool {
		return s.ecr.Count(ecrtest.KindManifestHead) > 0 && s.ecr.Count(ecrtest.KindManifestGet) > 0
	})
	s.stop()
	below(t, s.ecr, "team")
}

// Pulls are counted under the name at the registry.
func TestPrefixOfCounters(t *testing.T) {
	s := prefixed(t, "cache: {dir", "cloudwatch: {dimensions: image}\ncache: {dir")
	seed(t, s.ecr, "team/app", "v1", 1000)
	s.want(200, "GET", "/v2/app/manifests/v1", nil)
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "repository" {
					labels = append(labels, l.GetValue())
				}
			}
		}
	}
	if want := []string{s.ecr.RegistryHost + "/team/app"}; !slices.Equal(labels, want) {
		t.Errorf("labels %q", labels)
	}
}

// An image in the registry is judged where a pull would find it.
func TestPrefixOfCheckImage(t *testing.T) {
	s := prefixed(t)
	seed(t, s.ecr, "team/app", "v1", 1000)
	o, err := openRemote(t.Context(), s.cfg, "ecr/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	body, err := o.blobs.Open(t.Context(), oci.Descriptor{Digest: o.root.Layers[0].Digest})
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	below(t, s.ecr, "team", ecrtest.KindManifestGet, ecrtest.KindBlobGet)
}

func TestPrefixIsChecked(t *testing.T) {
	for prefix, ok := range map[string]bool{"team": true, "team/": true, "a/b": true, "a/b/": true, "/": false, "/team": false, "team//": false, "Team": false, "a//b": false} {
		path := filepath.Join(t.TempDir(), "dray.yaml")
		if err := os.WriteFile(path, []byte("upstreams: [{name: up, url: 'http://127.0.0.1:1', repository_prefix: '"+prefix+"'}]"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(path, nil); (err == nil) != ok {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}
