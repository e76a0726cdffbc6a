package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"dray/upstream/ecrtest"
)

// ECR takes ten manifests a second. Many that are pushed at once arrive in turns and none is refused.
func TestPushesKeepToTheCeilings(t *testing.T) {
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Quotas: ecrtest.DefaultQuotas()}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	m := s.push("team/app", "v0", []byte("layer"))
	var wg sync.WaitGroup
	for i := range 14 {
		wg.Go(func() {
			s.want(201, "PUT", fmt.Sprintf("/v2/team/app/manifests/v%d", i+1), m.Raw, "Content-Type", m.MediaType)
		})
	}
	wg.Wait()
	for _, e := range s.ecr.Log() {
		if e.Status == http.StatusTooManyRequests {
			t.Errorf("%s %s was refused", e.Method, e.Path)
		}
	}
	if n := s.ecr.Count("manifest-put"); n != 15 {
		t.Errorf("%d manifests arrived", n)
	}
}

// Where others use up the ceiling, pushes wait for what is left of it, and succeed.
func TestPushesOutlastThrottling(t *testing.T) {
	s := startStack(t, t.TempDir())
	m := s.push("team/app", "v0", []byte("layer"))
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut, ecrtest.KindUploadStart}, Count: 6, Status: 429, Code: "TOOMANYREQUESTS", Message: "Rate exceeded"})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s.want(201, "PUT", fmt.Sprintf("/v2/team/app/manifests/w%d", i), m.Raw, "Content-Type", m.MediaType)
		})
	}
	wg.Wait()
}
