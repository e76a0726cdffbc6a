package main

import (
	"errors"
	"strings"
	"testing"

	"dray/mirror/admin"
	"dray/upstream/ecrtest"
)

// TestStartWithoutUpstreams: an upstream that cannot be used is in the log from the start, and does
// not stop dray.
func TestStartWithoutUpstreams(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Count: -1, Status: 503})
	s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"base"}, Count: -1, Status: 500})
	for _, r := range s.registries {
		if err := r.healthy(t.Context()); !errors.Is(err, admin.ErrUnknown) {
			t.Errorf("before any request, the health of %s is %v", r.Name, err)
		}
	}
	s.greet(t.Context())
	for _, r := range s.registries {
		if err := r.healthy(t.Context()); err == nil || errors.Is(err, admin.ErrUnknown) {
			t.Errorf("the health of %s is %v", r.Name, err)
		}
	}
	for name, why := range map[string]string{"ecr": "the ECR API of the region eu-west-1 gives this mirror no token", "hub": "Internal Server Error"} {
		found := false
		for line := range strings.Lines(log.String()) {
			found = found || strings.Contains(line, `level=WARN msg="upstream is not available" upstream=`+name) && strings.Contains(line, why)
		}
		if !found {
			t.Errorf("the log does not say that %s cannot be used because of %q:\n%s", name, why, log.String())
		}
	}
	s.hub.ClearFaults()
	seed(t, s.hub, "library/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/hub/app/manifests/v1", nil)
	for _, r := range s.registries {
		if err := r.healthy(t.Context()); (err == nil) != (r.Name == "hub") {
			t.Errorf("after a pull from hub, the health of %s is %v", r.Name, err)
		}
	}
}
