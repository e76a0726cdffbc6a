package main

import (
	"net/http"
	"testing"
	"time"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// Clients that push ask by HEAD what the registry has, and send nothing if it has the manifest. So
// where pushes are taken, dray does not answer for a manifest that the registry has lost, although
// it holds the manifest itself.
func TestLostManifestIsPushedAgain(t *testing.T) {
	for name, edits := range map[string][]string{"acknowledged by the registry": nil, "acknowledged here": acknowledging} {
		for _, windows := range []string{"fresh: 1ms", "fresh: 1ms, revalidate: 1h", "fresh: 0s"} {
			for _, byDigest := range []bool{true, false} {
				s := startStack(t, t.TempDir(), append([]string{"fresh: 1h", windows, "not_found: 1h", "not_found: 10ms"}, edits...)...)
				layer := layerOf(1, 1000)
				m := s.push("team/app", "v1", layer)
				s.until(func() bool { return len(s.queue.List()) == 0 })
				s.want(200, "HEAD", "/v2/team/app/manifests/"+m.Digest.String(), nil)
				s.lose("team/app", m)
				<-time.After(2 * time.Millisecond)
				ref := "v1"
				if byDigest {
					ref = m.Digest.String()
				}
				if r := s.do("HEAD", "/v2/team/app/manifests/"+ref, nil, "Accept", m.MediaType); r.StatusCode != http.StatusNotFound {
					t.Errorf("%s, %s: HEAD of the lost %s: %s", name, windows, ref, r.Status)
				}
				s.want(200, "GET", "/v2/team/app/manifests/"+m.Digest.String(), nil) // pulls go on
				if _, put := s.pushAsking("team/app", ref, m, layer, imageConfig); put.StatusCode != http.StatusCreated {
					t.Fatalf("%s %s", put.Status, put.body)
				}
				s.until(func() bool { return len(s.queue.List()) == 0 })
				s.holds("team/app", ref, m, layer)
				s.want(200, "HEAD", "/v2/team/app/manifests/"+ref, nil, "Accept", m.MediaType)
				s.stop()
			}
		}
	}
}

// That the registry has an index says nothing of the index's parts.
func TestLostPartOfAnIndexIsPushedAgain(t *testing.T) {
	s := startStack(t, t.TempDir())
	layer := layerOf(1, 1000)
	part := s.push("team/app", "part", layer)
	index := indexOf(t, part)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", index.Raw, "Content-Type", index.MediaType)
	s.stop()
	s = startBefore(t, s.ecr, s.hub, t.TempDir()) // a dray that knows the index from the registry
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", index.MediaType)
	s.ecr.ResetCounters()
	s.want(200, "HEAD", "/v2/team/app/manifests/"+part.Digest.String(), nil, "Accept", part.MediaType)
	spent(t, s.ecr, kinds{"manifest-get": 1})
}

// A registry that fails keeps nobody from content that it once confirmed. Other content is sent
// by clients whose push is acknowledged here, and is an outage for the rest.
func TestHeadBeforeAPushDuringOutage(t *testing.T) {
	unknown := imageOf(t, layerOf(9, 900))
	for name, unanswered := range map[string]struct {
		edits []string
		want  int
	}{"acknowledged by the registry": {nil, 503}, "acknowledged here": {acknowledging, 404}} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), append([]string{"fresh: 1h", "fresh: 0s"}, unanswered.edits...)...)
			img := seed(t, s.ecr, "team/app", "v1", 1000)
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", img.manifest.MediaType)
			s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil)
			if err := s.inventory.Presence.Forget(t.Context(), "ecr", "team/app", img.layer); err != nil {
				t.Fatal(err)
			}
			s.ecr.AddFault(ecrtest.Fault{Status: 503, Count: -1})
			for _, path := range []string{"manifests/" + img.manifest.Digest.String(), "manifests/v1", "blobs/" + img.layer.String()} {
				r := s.want(200, "HEAD", "/v2/team/app/"+path, nil, "Accept", img.manifest.MediaType)
				if r.Header.Get("Warning") == "" {
					t.Errorf("HEAD of %s: no Warning", path)
				}
			}
			for _, path := range []string{"manifests/" + unknown.Digest.String(), "blobs/" + unknown.Layers[0].Digest.String()} {
				s.want(unanswered.want, "HEAD", "/v2/team/app/"+path, nil, "Accept", oci.MediaTypeOCIManifest)
			}
		})
	}
}
