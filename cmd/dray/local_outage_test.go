package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// outages are the ways in which a registry gives no answer.
func outages() map[string]ecrtest.Fault {
	return map[string]ecrtest.Fault{
		"down":              {Close: true, Count: -1},
		"silent":            {Latency: time.Hour, Count: -1},
		"failing":           {Status: 500, Count: -1},
		"throttling":        {Status: 429, Count: -1},
		"throttling longer": {Status: 429, RetryAfter: time.Minute, Count: -1},
		"without a token":   {Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Status: 400, Code: "ServerException", Count: -1},
	}
}

// With acknowledge: local, clients that ask for blobs before they send them push while the registry
// gives no answer, from the start of dray on. No client waits long, the queue shows the pushes, and
// all of them arrive.
func TestPushDuringOutage(t *testing.T) {
	for name, fault := range outages() {
		t.Run(name, func(t *testing.T) {
			ecr := ecrtest.Start(t, ecrtest.Options{})
			ecr.CreateRepository("team/app")
			ecr.AddFault(fault)
			s := startBefore(t, ecr, ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), acknowledging...)
			begun := time.Now()
			// A mount is asked for first, as of a layer that another repository has.
			for range 2 {
				s.want(202, "POST", "/v2/team/app/blobs/uploads/?from=team/base&mount="+digest.FromString(name).String(), nil)
			}
			layer, other := layerOf(1, 60_000), layerOf(2, 70_000)
			one, two := imageOf(t, layer), imageOf(t, layer, other)
			index := indexOf(t, one, two)
			push := func(ref string, m *oci.Manifest, blobs ...[]byte) {
				t.Helper()
				s.want(404, "HEAD", "/v2/team/app/manifests/"+ref, nil)
				if _, put := s.pushAsking("team/app", ref, m, blobs...); put.StatusCode != http.StatusCreated {
					t.Fatalf("%s %s", put.Status, put.body)
				}
				s.want(200, "HEAD", "/v2/team/app/manifests/"+ref, nil)
				for _, b := range blobs {
					s.want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(b).String(), nil)
				}
			}
			push(one.Digest.String(), one, layer, imageConfig)
			push(two.Digest.String(), two, layer, other, imageConfig)
			push("multi", index)
			push("v1", one, layer, imageConfig)
			// A client that waited for the registry would wait 10 s for each of its questions.
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("the pushes took %v", took)
			}
			s.ecr.ClearFaults()
			s.until(func() bool {
				for _, e := range s.queue.List() {
					_ = s.queue.Retry(s.Context(), e.ID)
				}
				return len(s.queue.List()) == 0
			})
			s.holds("team/app", "v1", one, layer)
			s.holds("team/app", two.Digest.String(), two, layer, other)
			if _, there := s.ecr.Image("team/app", "multi"); !there {
				t.Error("ECR has no index")
			}
		})
	}
}

// Clients that cannot send the missing blobs, or whose push waits for the registry, see an outage
// as an outage. dray asks the registry again soon after it is back, and meanwhile serves old
// answers about tags.
func TestOutageIsTold(t *testing.T) {
	absent := "/v2/team/app/blobs/" + digest.FromString("absent").String()
	for name, edits := range map[string][]string{
		"acknowledged by the registry": nil,
		"a mirror":                     append([]string{"{name: main,", "{name: main, role: mirror,"}, acknowledging...),
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), edits...)
			s.ecr.CreateRepository("team/app")
			s.ecr.AddFault(ecrtest.Fault{Status: 500, Count: -1})
			for _, path := range []string{absent, "/v2/team/app/manifests/v1"} {
				if r := s.do("HEAD", path, nil); r.StatusCode < 500 {
					t.Errorf("%s: %s", path, r.Status)
				}
			}
		})
	}
	t.Run("afterwards", func(t *testing.T) {
		s := startStack(t, t.TempDir(), append([]string{"fresh: 1h", "fresh: 0s"}, acknowledging...)...)
		s.ecr.CreateRepository("team/app")
		m := s.push("team/app", "v1", layerOf(1, 1000))
		s.forwarded()
		s.outage()
		s.want(404, "HEAD", absent, nil)
		s.want(200, "HEAD", "/v2/team/app/manifests/v1", nil)
		s.want(404, "HEAD", "/v2/team/app/manifests/v2", nil)
		if r := s.do("GET", "/v2/team/app/manifests/v2", nil); r.StatusCode < 500 {
			t.Errorf("GET: %s", r.Status)
		}
		s.ecr.ClearFaults()
		pushDirectly(t, s.ecr, "team/app", "v2", layerOf(1, 1000))
		s.until(func() bool { return s.do("HEAD", "/v2/team/app/manifests/v2", nil).StatusCode == 200 })
		s.want(200, "HEAD", "/v2/team/app/blobs/"+m.Layers[0].Digest.String(), nil)
	})
}
