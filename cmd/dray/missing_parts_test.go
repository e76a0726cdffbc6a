package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// pushAsking pushes as clients do, who ask for each blob first and send what is not there. It
// returns how many were sent and the answer to the manifest.
func (s *stack) pushAsking(repo, ref string, man *oci.Manifest, blobs ...[]byte) (sent int, put got) {
	s.Helper()
	for _, b := range blobs {
		switch r := s.do("HEAD", "/v2/"+repo+"/blobs/"+digest.FromBytes(b).String(), nil); r.StatusCode {
		case http.StatusOK:
		case http.StatusNotFound:
			s.upload(repo, b)
			sent++
		default:
			s.Fatalf("HEAD of a blob: %s", r.Status)
		}
	}
	return sent, s.do("PUT", "/v2/"+repo+"/manifests/"+ref, man.Raw, "Content-Type", man.MediaType)
}

// lose has ECR lose manifests with their blobs behind dray.
func (s *stack) lose(repo string, manifests ...*oci.Manifest) {
	s.Helper()
	for _, m := range manifests {
		r, err := http.NewRequestWithContext(s.Context(), http.MethodDelete, s.ecr.RegistryURL+"/v2/"+repo+"/manifests/"+m.Digest.String(), nil)
		if err != nil {
			s.Fatal(err)
		}
		r.Host = s.ecr.RegistryHost
		r.SetBasicAuth("AWS", s.ecr.Token(""))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			s.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			s.Fatalf("ECR does not delete %s, but says %s", m.Digest, resp.Status)
		}
	}
	for _, m := range manifests {
		for _, c := range m.Children() {
			s.ecr.DropBlob(repo, c.Digest)
		}
	}
}

// missingParts are the ways in which a registry may say that it lacks what a manifest names.
func missingParts() map[string]func(*ecrtest.Switches) {
	all := map[string]func(*ecrtest.Switches){"by default": func(*ecrtest.Switches) {}}
	for _, code := range []string{"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN", "UNKNOWN"} { // the last one is told by its text
		for _, status := range []int{404, 400} {
			all[fmt.Sprint(status, code)] = func(sw *ecrtest.Switches) {
				sw.MissingLayers, sw.MissingImages = ecrtest.Refusal{Status: status, Code: code}, ecrtest.Refusal{Status: status, Code: code}
			}
		}
	}
	return all
}

// ECR has lost content that dray believes to be there, and a client leaves it out of its next push.
// dray then sends it from the cache: for a single image and for an index with its images, whatever
// ECR's refusal looks like, and at both levels of acknowledgement.
func TestPushOfWhatWasLost(t *testing.T) {
	for level, edits := range map[string][]string{"upstream": nil, "local": acknowledging} {
		for name, change := range missingParts() {
			t.Run(level+"/"+name, func(t *testing.T) {
				s := startStack(t, t.TempDir(), edits...)
				s.ecr.CreateRepository("team/app")
				sw := ecrtest.DefaultSwitches()
				change(&sw)
				s.ecr.SetSwitches(sw)
				layer := layerOf(1, 50_000)
				img := imageOf(t, layer)
				index := indexOf(t, img)
				pushes := func(want int) {
					t.Helper()
					n, _ := s.pushAsking("team/app", img.Digest.String(), img, imageConfig, layer)
					_, put := s.pushAsking("team/app", "multi", index)
					if n != want || put.StatusCode != http.StatusCreated {
						t.Fatalf("%d blobs sent, the answer to the index is %s %s", n, put.Status, put.body)
					}
					if _, put := s.pushAsking("team/app", "v1", img, imageConfig, layer); put.StatusCode != http.StatusCreated {
						t.Fatalf("%s %s", put.Status, put.body)
					}
					if s.queue.Takes() {
						s.forwarded()
					}
					s.holds("team/app", "v1", img, layer)
					if _, there := s.ecr.Image("team/app", "multi"); !there {
						t.Fatal("ECR has no index")
					}
				}
				pushes(2)
				s.lose("team/app", index, img)
				pushes(0)

				// The index alone, as after a push of its images that was skipped.
				s.lose("team/app", index, img)
				if _, put := s.pushAsking("team/app", "multi", index); put.StatusCode != http.StatusCreated {
					t.Fatalf("%s %s", put.Status, put.body)
				}
				if s.queue.Takes() {
					s.forwarded()
				}
				s.holds("team/app", img.Digest.String(), img, layer)
			})
		}
	}
}

// A push whose parts ECR takes a while to see is not given up.
func TestPartsSeenLate(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	s.ecr.CreateRepository("team/app")
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: 404, Code: "BLOB_UPLOAD_UNKNOWN", Count: 3})
	layer := layerOf(1, 50_000)
	m := s.push("team/app", "v1", layer)
	s.forwarded()
	s.holds("team/app", "v1", m, layer)
}

// A verdict is attached even if ECR has lost its blobs.
func TestVerdictOfWhatWasLost(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  attach: true\n  names: {mode: enforce, forbidden_tags: [latest]}")...)
	s.ecr.CreateRepository("team/app")
	one, two := builtOn(t, newImage(t, plainConfig), "one"), builtOn(t, newImage(t, plainConfig), "two")
	s.pushImage("team/app", "v1", one)
	s.becomes(attached, 1)
	s.ecr.DropBlob("team/app", digest.FromString("{}"))
	s.pushImage("team/app", "v2", two)
	s.becomes(attached, 2)
	if n := len(s.attachedTo("team/app", two.man.Digest)); n != 1 {
		t.Errorf("%d verdicts beside the image", n)
	}
}

// After a purge nothing is believed of the registry, whose images may have gone as well: clients
// send again what cannot be sent from here.
func TestPushOfWhatWasPurged(t *testing.T) {
	layer := layerOf(1, 50_000)
	for name, args := range map[string][]string{
		"repository": {"--repository", "team/*"},
		"tag":        {"team/app:v1"},
		"layer":      {"--force", digest.FromBytes(layer).String()},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir())
			m := s.push("team/app", "v1", layer)
			s.lose("team/app", m)
			operated[api.Purged](s, append([]string{"purge"}, args...)...)
			sent, put := s.pushAsking("team/app", "v1", m, imageConfig, layer)
			if sent == 0 || put.StatusCode != http.StatusCreated {
				t.Fatalf("%d blobs sent, then %s %s", sent, put.Status, put.body)
			}
			s.holds("team/app", "v1", m, layer)
		})
	}
}
