package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"dray/upstream/ecrtest"
)

// ECR takes ten manifests a second. Many that are pushed at once arrive in turns and none is
// refused.
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
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut, ecrtest.KindUploadStart}, Count: 4, Status: 429, Code: "TOOMANYREQUESTS", Message: "Rate exceeded"})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s.want(201, "PUT", fmt.Sprintf("/v2/team/app/manifests/w%d", i), m.Raw, "Content-Type", m.MediaType)
		})
	}
	wg.Wait()
}

// A registry that throttles, or fails for a moment, is not what clients see: all of them are
// answered within their 30 s.
func TestPullsOutlastThrottling(t *testing.T) {
	for name, set := range map[string]func(*ecrtest.Running){
		"ceiling": func(r *ecrtest.Running) { r.SetQuotas(map[string]ecrtest.Quota{"BatchGetImage": {Rate: 10, Burst: 4}}) },
		"429":     func(r *ecrtest.Running) { r.AddFault(ecrtest.Fault{Kinds: readKinds, Count: 6, Status: 429}) },
		"503":     func(r *ecrtest.Running) { r.AddFault(ecrtest.Fault{Kinds: readKinds, Count: 20, Status: 503}) },
		"closed":  func(r *ecrtest.Running) { r.AddFault(ecrtest.Fault{Kinds: readKinds, Count: 20, Close: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
			s := startBefore(t, ecr, hub, t.TempDir())
			for i := range 20 {
				seed(t, ecr, fmt.Sprintf("team/app%d", i), "v1", 1<<10)
			}
			set(ecr)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { s.want(200, "GET", fmt.Sprintf("/v2/team/app%d/manifests/v1", i), nil) })
			}
			wg.Wait()
			refused := 0
			for _, e := range ecr.Log() {
				if e.Status == http.StatusTooManyRequests {
					refused++
				}
			}
			if refused > 30 {
				t.Errorf("%d requests were refused", refused)
			}
		})
	}
}
