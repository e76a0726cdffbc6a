package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/jobs"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// becomes waits until a metric has reached a value.
func (s *stack) becomes(name string, want float64) {
	s.Helper()
	for end := time.Now().Add(time.Minute); s.metric(name) < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("%s is %v, want %v", name, s.metric(name), want)
		}
	}
}

// attachedTo lists the verdicts that clients find beside an image.
func (s *stack) attachedTo(repo string, d digest.Digest) []oci.Descriptor {
	s.Helper()
	var index struct{ Manifests []oci.Descriptor }
	r := s.want(200, "GET", "/v2/"+repo+"/referrers/"+d.String()+"?artifactType="+url.QueryEscape(jobs.MediaTypeVerdict), nil)
	if err := json.Unmarshal(r.body, &index); err != nil {
		s.Fatal(err)
	}
	return index.Manifests
}

const attached = "dray_verdicts_attached_total"

// The verdict on a forwarded image is found beside it, once for each verdict, at every registry and
// level of acknowledgement. The verdict on an index is beside the index only.
func TestVerdictAttached(t *testing.T) {
	plain := ecrtest.DefaultSwitches()
	plain.SubjectHeader = true
	silent := ecrtest.DefaultSwitches()
	silent.SubjectHeader = false
	for name, c := range map[string]struct {
		switches ecrtest.Switches
		edits    []string
		fault    bool // no list of referrers
	}{
		"a registry that says that it lists referrers": {switches: plain},
		"a registry that does not say":                 {switches: silent},
		"a registry without the list":                  {switches: silent, fault: true},
		"acknowledged before":                          {switches: plain, edits: []string{"  keep_alive: 0s\n", "  keep_alive: 0s\n  acknowledge: local\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &c.switches}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
				append(checked("  attach: true\n  metadata: {mode: warn, required: [{key: team}]}"), c.edits...)...)
			if c.fault {
				s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindReferrers}, Count: -1, Status: 404, Code: "NOT_FOUND"})
			}
			s.ecr.CreateRepository("team/app")
			img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", name)))
			s.pushImage("team/app", "", img)
			index := indexOf(t, img.man)
			for i := range 3 { // the same verdict again, and under another tag
				tag := []string{"v1", "v1", "v2"}[i]
				if r := s.putManifest("team/app", tag, index); r.StatusCode != http.StatusCreated {
					t.Fatalf("%s %s", r.Status, r.body)
				}
				s.becomes(attached, float64(i+1))
			}
			if other := s.attachedTo("team/app", img.man.Digest); len(other) != 0 {
				t.Errorf("a child has %v", other)
			}
			found := s.attachedTo("team/app", index.Digest)
			if len(found) != 1 || found[0].ArtifactType != jobs.MediaTypeVerdict || found[0].Annotations["vnd.dray.verdict"] != "pass" || found[0].Annotations["vnd.dray.checks"] != "gate" {
				t.Fatalf("found %+v\n%s", found, strings.Join(s.ecr.Sequence(), "\n"))
			}
			man := s.want(200, "GET", "/v2/team/app/manifests/"+found[0].Digest.String(), nil)
			parsed, err := oci.ParseManifest(man.Header.Get("Content-Type"), man.body)
			if err != nil || parsed.Subject == nil || parsed.Subject.Digest != index.Digest || len(parsed.Layers) != 1 {
				t.Fatalf("%s, %v", man.body, err)
			}
			report := string(s.want(200, "GET", "/v2/team/app/blobs/"+parsed.Layers[0].Digest.String(), nil).body)
			for _, want := range []string{`"pass":true`, index.Digest.String(), `"rule":"required"`} {
				if !strings.Contains(report, want) {
					t.Errorf("%s is not in the report %s", want, report)
				}
			}
			want := 3 // image, index, verdict
			if c.fault {
				want++
			}
			if all := s.ecr.Images(); len(all) != want {
				t.Errorf("ECR has %d manifests, want %d: %+v", len(all), want, all)
			}
			if n := s.ecr.Count(ecrtest.KindManifestPut); n != int64(want+2) { // the index three times
				t.Errorf("ECR got %d manifests, want %d", n, want+2)
			}
		})
	}
}

// A verdict that cannot be attached fails no push. A verdict that was deleted with its image comes
// back with it. A verdict that rejects is not attached.
func TestVerdictNotAttached(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  attach: true\n  names: {mode: enforce, forbidden_tags: [latest]}")...)
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "b")))
	s.message(s.pushImage("team/app", "latest", img))
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Skip: 1, Count: 1, Status: 400, Code: "MANIFEST_INVALID"})
	if r := s.pushImage("team/app", "v1", img); r.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	s.becomes(attached, 1)
	if found := s.attachedTo("team/app", img.man.Digest); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	s.putManifest("team/app", "v1", img.man)
	s.becomes(attached, 2)
	found := s.attachedTo("team/app", img.man.Digest)
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}

	// Somebody deletes image and verdict at ECR, and the image is pushed again.
	other := startBefore(t, s.ecr, s.hub, t.TempDir(), "push: true", deleting)
	for _, d := range []digest.Digest{found[0].Digest, img.man.Digest} {
		other.want(202, "DELETE", "/v2/team/app/manifests/"+d.String(), nil)
	}
	if r := s.pushImage("team/app", "v1", img); r.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	s.becomes(attached, 3)
	if _, there := s.ecr.Image("team/app", found[0].Digest.String()); !there {
		t.Error("the verdict did not come back")
	}
}

// A verdict that is still to be attached is not attached once its image is deleted.
func TestVerdictOfDeletedImage(t *testing.T) {
	edits := checked("  attach: true\n  names: {mode: enforce, forbidden_tags: [latest]}")
	s := startStack(t, t.TempDir(), append(edits, "  keep_alive: 0s\n", "  keep_alive: 0s\n  delete: true\n  acknowledge: local\n")...)
	s.ecr.CreateRepository("team/app")
	s.refuseManifests()
	gone, stays := builtOn(t, newImage(t, plainConfig), "one"), builtOn(t, newImage(t, plainConfig), "two")
	for i, img := range []image{gone, stays} { // one after the other, as they would be made
		if r := s.pushImage("team/app", fmt.Sprintf("v%d", i+1), img); r.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s", r.Status, r.body)
		}
	}
	s.want(202, "DELETE", "/v2/team/app/manifests/v1", nil)
	s.arrives()
	s.becomes(attached, 1)
	if _, ok := s.ecr.Image("team/app", "v1"); ok {
		t.Error("ECR has the deleted image")
	}
	if n := len(s.attachedTo("team/app", gone.man.Digest)); n != 0 {
		t.Errorf("%d verdicts beside an image that is not there", n)
	}
}
