package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestFleetZone: a member asks its instance for the zone, unless the configuration names one.
func TestFleetZone(t *testing.T) {
	f := startFleet(t, 0, "whole", patient)
	secret := f.secret()
	var asked [2]atomic.Int64
	for i, zone := range []string{"", "configured"} {
		metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked[i].Add(1)
			w.WriteHeader(http.StatusNotFound)
		}))
		defer metadata.Close()
		f.env = []string{metadataEndpoint + "=" + metadata.URL}
		f.members = append(f.members, f.start(i+1, secret, "whole", patient, zone))
	}
	f.eventually("question for the zone", func() bool { return asked[0].Load() > 0 })
	if n := asked[1].Load(); n != 0 {
		t.Errorf("a member with a zone has asked for it %d times", n)
	}
}
