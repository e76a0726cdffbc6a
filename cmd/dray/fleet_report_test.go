package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"dray/mirror/admin/api"
)

// TestFleetReport has three members on one layer, and asks one of them who reads from whom.
func TestFleetReport(t *testing.T) {
	f := startFleet(t, 3, "whole", patient)
	release := f.hold(f.size/2, 1)
	for _, p := range f.members {
		c := f.pull(p)
		c.reaches(f.size / 4)
		defer c.ends()
	}
	defer release()
	asked := f.members[1]
	ask := func(args ...string) []byte {
		t.Helper()
		var out, failures bytes.Buffer
		if code := run(t.Context(), append([]string{"fleet", "--admin", asked.admin}, args...), nil, nil, &out, &failures); code != 0 {
			t.Fatalf("exit code %d: %s", code, &failures)
		}
		return out.Bytes()
	}
	var report api.Fleet
	f.eventually("three members", func() bool {
		report = api.Fleet{}
		if err := json.Unmarshal(ask("--json"), &report); err != nil {
			t.Fatal(err)
		}
		return len(report.Members) == 3
	})
	followers, feeds := map[string]int{}, map[string]int{}
	var leases, askers int
	var received, sent int64
	for _, m := range report.Members {
		if m.State == nil {
			t.Fatalf("%s did not answer: %s", m.Address, m.Failure)
		}
		if host, _, _ := strings.Cut(m.Address, ":"); m.Asked != (host == "127.0.1.2") || m.Protocol == 0 || m.Version == "" || m.State.Started.IsZero() {
			t.Errorf("got %+v", m)
		}
		followers[m.ID] = m.State.Followers
		leases += m.State.Leases
		received += m.State.Bytes.SameZone + m.State.Bytes.OtherZones
		sent += m.State.Bytes.Sent
		if m.State.Leases > 0 && m.State.Bytes.Upstreams < f.size/4 {
			t.Errorf("the holder has %d bytes from the registry", m.State.Bytes.Upstreams)
		}
		if len(m.State.Reading) == 0 {
			askers++
		}
		for _, s := range m.State.Reading {
			if s.Digest != f.image.layer || s.Bytes < f.size/4 || s.Hop < 1 || s.From == m.ID {
				t.Errorf("%s reads %+v", m.Address, s)
			}
			feeds[s.From]++
		}
	}
	if leases != 1 || askers != 1 || received < f.size/2 || sent < f.size/4 { // what is sent is counted late
		t.Errorf("%d leases, %d members that read from nobody, %d bytes received and %d sent", leases, askers, received, sent)
	}
	for id, n := range followers {
		if feeds[id] != n {
			t.Errorf("%s gives %d streams, and others say %d", id, n, feeds[id])
		}
	}
	text := string(ask())
	for _, p := range f.members {
		if host := strings.Split(strings.TrimPrefix(p.admin, "http://"), ":")[0]; strings.Count(text, host+":") < 2 {
			t.Errorf("%s is not in\n%s", host, text)
		}
	}
	if !strings.Contains(text, f.image.layer.Encoded()[:12]) {
		t.Errorf("the layer is not in\n%s", text)
	}
}
