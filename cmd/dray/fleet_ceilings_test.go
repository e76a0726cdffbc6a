package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

// startCeilings starts three members that know each other, before a registry that allows a number
// of manifests per second. A request waits there for so long.
func startCeilings(t *testing.T, perSecond int, wait time.Duration) *fleetOf {
	t.Helper()
	f := startFleet(t, 0, "whole", patient)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("secret of the fleet ", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.members = append(f.members, f.run(fmt.Sprintf(`
listeners: [{address: %q}]
upstreams:
- {name: hub, url: "http://%s", default_namespace: library, limits: {wait: %s, rates: {manifest_get: %d}}}
metadata: {url: "redis://%s?dial_timeout=2m&read_timeout=2m&write_timeout=2m&pool_timeout=2m"}
fleet: {address: %q, secret_file: %q}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: %q}
log: {level: info, access: false}
`, freeOn(t, "127.0.1.1"), f.hub.RegistryAddr, wait, perSecond, f.redis.Addr, freeOn(t, "127.0.1.1"), secret, filepath.Join(t.TempDir(), "cache"), freeOn(t, "127.0.1.1")), patient))
	}
	// A member that knows two others has a third of what is divided without asking.
	for _, p := range f.members {
		f.eventually("look at the other members", func() bool {
			floor, ok := f.value(p, `dray_fleet_share_per_second{operation="manifest_get",upstream="hub"}`)
			return ok && floor < 0.05*float64(perSecond)/2.9
		})
	}
	return f
}

// value returns the value of a metric of a member.
func (f *fleetOf) value(p *drayProcess, metric string) (v float64, ok bool) {
	f.Helper()
	_, text := f.ask(http.MethodGet, p.admin+"/metrics")
	_, text, _ = strings.Cut(text, "\n"+metric+" ")
	text, _, _ = strings.Cut(text, "\n")
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}

// askTag asks a member for a tag that nobody has asked for, so that it asks the registry.
func (f *fleetOf) askTag(p *drayProcess, tag string) int {
	f.Helper()
	status, _ := f.ask(http.MethodGet, p.url+"/v2/library/cold/manifests/"+tag)
	return status
}

func (f *fleetOf) manifestRequests() int64 {
	<-f.hub.Idle()
	return f.hub.Counters()[ecrtest.KindManifestGet].Requests
}

// TestFleetCeiling has clients of three members ask for more than the registry allows to all of
// them. It gets no more than that in the time that this takes, however long that is.
func TestFleetCeiling(t *testing.T) {
	const perSecond = 20
	f := startCeilings(t, perSecond, time.Minute)
	before, began := f.manifestRequests(), time.Now()
	var asking sync.WaitGroup
	for i, p := range f.members {
		for j := range 25 {
			asking.Go(func() { f.askTag(p, fmt.Sprint("tag-", i, "-", j)) })
		}
	}
	asking.Wait()
	took := time.Since(began)
	// Half a second's worth is the burst of all limiters together, and each has at least one request.
	most := perSecond*took.Seconds() + perSecond/2 + 3
	got := float64(f.manifestRequests() - before)
	t.Logf("the registry got %v requests in %v", got, took)
	if got > most || got < 60 {
		t.Errorf("the registry got %v requests in %v, want 60 to %.1f", got, took, most)
	}
}

// TestFleetPause has the registry refuse one member with 429, whichever asks first. The others then
// send nothing either.
func TestFleetPause(t *testing.T) {
	const pause = time.Minute
	f := startCeilings(t, 1000, time.Second)
	for n := 1; ; n++ {
		for i, p := range f.members {
			f.eventually("end of the pause", func() bool { return f.askTag(p, fmt.Sprint("before-", n, "-", i)) == http.StatusNotFound })
		}
		f.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestGet}, Status: http.StatusTooManyRequests, RetryAfter: pause, Count: 1})
		began := time.Now()
		f.askTag(f.members[0], fmt.Sprint("refused-", n))
		f.eventually("pause of all members", func() bool {
			told := 0.
			for _, p := range f.members {
				v, _ := f.value(p, `dray_fleet_pauses_total{from="member"}`)
				told += v
			}
			return told == float64(2*n)
		})
		var wrong []string
		before := f.manifestRequests()
		for i, p := range f.members {
			for j := range 5 {
				if status := f.askTag(p, fmt.Sprint("late-", n, "-", i, "-", j)); status != http.StatusTooManyRequests {
					wrong = append(wrong, fmt.Sprintf("in the pause, member %d answers %d", i, status))
				}
			}
		}
		if sent := f.manifestRequests() - before; sent != 0 {
			wrong = append(wrong, fmt.Sprintf("the registry got %d requests in the pause", sent))
		}
		if took := time.Since(began); took > pause-5*time.Second {
			t.Logf("the pause may have ended, because that took %v", took)
			continue
		}
		for _, w := range wrong {
			t.Error(w)
		}
		return
	}
}
