package main

import (
	"fmt"
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
	health := func(want string) {
		t.Helper()
		for _, r := range s.registries {
			if err := r.healthy(t.Context()); fmt.Sprint(err) != want && (want == "" || !strings.Contains(fmt.Sprint(err), want)) {
				t.Errorf("the health of %s is %v, want %q", r.Name, err, want)
			}
		}
	}
	health(admin.ErrUnknown.Error())
	s.greet(t.Context())
	health("upstream") // each says what is wrong with it
	for name, why := range map[string]string{"ecr": "the ECR API of the region eu-west-1 gives this mirror no token", "hub": "Internal Server Error"} {
		found := false
		for line := range strings.Lines(log.String()) {
			found = found || strings.Contains(line, `level=WARN msg="upstream is not available" upstream=`+name) && strings.Contains(line, why)
		}
		if !found {
			t.Errorf("the log does not say that %s cannot be used because of %q:\n%s", name, why, log.String())
		}
	}
	s.ecr.ClearFaults()
	s.hub.ClearFaults()
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	seed(t, s.hub, "library/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.want(200, "GET", "/v2/hub/app/manifests/v1", nil)
	health("<nil>")
}
