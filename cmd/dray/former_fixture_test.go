package main

import (
	"slices"
	"testing"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// former is the content that testdata/former is about. It is the same each time that it is made.
type former struct {
	pulled, base seeded // at the registries
	// Images of layers, pushed while the registry answered; all others are pushed while it did not.
	done, refused, hosted, waited, second, other, first *oci.Manifest
	cache, index                                        *oci.Manifest
	children                                            []*oci.Manifest
}

func newFormer(t *testing.T) *former {
	f := &former{}
	f.done, f.refused, f.hosted = imageOf(t, layerOf(1, 9000)), imageOf(t, layerOf(2, 3000)), imageOf(t, layerOf(3, 5000))
	f.first, f.second, f.other = imageOf(t, layerOf(4, 4000)), imageOf(t, layerOf(5, 4001), layerOf(6, 200)), imageOf(t, layerOf(7, 4002))
	f.children = []*oci.Manifest{imageOf(t, layerOf(8, 2000)), imageOf(t, layerOf(9, 2001))}
	f.index = indexOf(t, f.children...)
	f.waited = imageOf(t, layerOf(10, 6000))
	f.cache = cacheOf(t, false, layerOf(11, 7000))
	return f
}

// registries start what the former dray was before, with the images that were there at first.
func (f *former) registries(t *testing.T) (ecr, hub *ecrtest.Running) {
	t.Helper()
	ecr, hub = ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	f.pulled = seed(t, ecr, "team/pulled", "v1", 20_000)
	f.base = seed(t, hub, "library/base", "12", 10_000)
	for _, name := range []string{"team/done", "team/refused", "team/a", "team/b", "team/c", "team/staged", "team/session", "team/late", "checked/app"} {
		ecr.CreateRepository(name)
	}
	return ecr, hub
}

const sessionBytes, sessionSent = 12_000, 7_000

func session() []byte { return layerOf(12, sessionBytes) }

// fill makes a dray leave everything that can be left, and returns the locations of its uploads.
func (f *former) fill(s *stack) map[string]string {
	s.Helper()
	pull := func(at, tag string, img seeded) {
		s.want(200, "GET", at+"/manifests/"+tag, nil)
		s.want(200, "GET", at+"/blobs/"+img.manifest.Config.Digest.String(), nil)
		s.want(200, "GET", at+"/blobs/"+img.layer.String(), nil)
	}
	pull("/v2/team/pulled", "v1", f.pulled)
	pull("/v2/hub/library/base", "12", f.base)
	s.want(404, "GET", "/v2/team/pulled/manifests/none", nil)
	s.eventually("the base is learnt", func() bool { return s.series("dray_base_images_recorded_total") >= 2 })
	if r := s.pushImage("checked/app", "v1", f.built(s)); r.StatusCode != 201 {
		s.Fatalf("%s %s", r.Status, r.body)
	}
	s.push("team/done", "v1", layerOf(1, 9000))
	s.push("own/team/app", "v1", layerOf(3, 5000))
	f.pushCache(s)
	for _, name := range []string{"team/pulled:v1", "docker.io/library/base:12"} {
		operated[api.Pin](s, "pin", name)
	}
	s.flush()
	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:PutImage"})
	s.push("team/refused", "v1", layerOf(2, 3000))
	s.eventually("the push is refused", func() bool { return slices.Equal(s.pending(), []string{"team/refused:v1 failed"}) })
	s.ecr.SetDenials()

	s.outage()
	s.hub.AddFault(ecrtest.Fault{Close: true, Count: 1 << 30})
	s.push("team/a", "v1", layerOf(4, 4000))
	s.push("team/b", "v1", layerOf(7, 4002))
	s.push("team/a", "v1", layerOf(5, 4001), layerOf(6, 200))
	s.push("team/c", f.children[0].Digest.String(), layerOf(8, 2000))
	s.push("team/c", f.children[1].Digest.String(), layerOf(9, 2001))
	s.want(201, "PUT", "/v2/team/c/manifests/all", f.index.Raw, "Content-Type", f.index.MediaType)
	at := map[string]string{}
	for _, repo := range []string{"team/", "hub/library/"} {
		s.upload(repo+"staged", layerOf(10, 6000))
		at[repo+"session"] = s.start(repo + "session")
		s.want(202, "PATCH", at[repo+"session"], session()[:sessionSent])
	}
	return at
}

// built is an image on the base, which the checks let pass.
func (f *former) built(s *stack) image {
	s.Helper()
	base := image{man: f.base.manifest}
	base.config = string(s.want(200, "GET", "/v2/hub/library/base/blobs/"+f.base.manifest.Config.Digest.String(), nil).body)
	base.layers = append(base.layers, s.want(200, "GET", "/v2/hub/library/base/blobs/"+f.base.layer.String(), nil).body)
	return builtOn(s, base, "one")
}

func (f *former) pushCache(s *stack) {
	s.upload("team/cache", layerOf(11, 7000))
	s.upload("team/cache", imageConfig)
	s.want(201, "PUT", "/v2/team/cache/manifests/main", f.cache.Raw, "Content-Type", f.cache.MediaType)
}

// everythingWaits is the queue that the former dray left.
func (f *former) everythingWaits() []string {
	return []string{"team/refused:v1 failed", "team/a:v1 waiting", "team/b:v1 waiting", "team/a:v1 waiting",
		"team/c:" + f.children[0].Digest.String() + " waiting", "team/c:" + f.children[1].Digest.String() + " waiting", "team/c:all waiting"}
}
