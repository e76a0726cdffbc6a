package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// keys returns the keys of Redis that match a pattern.
func (f *fleetOf) keys(pattern string) (keys []string) {
	f.Helper()
	for line := range strings.Lines(f.redis.Do("KEYS", pattern)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "$") {
			keys = append(keys, line)
		}
	}
	return keys
}

// TestFleetForgedFacts has somebody who can write to Redis, and does not know the secret, make a
// layer visible in a repository that does not have it.
func TestFleetForgedFacts(t *testing.T) {
	f := startFleet(t, 2, "whole", patient)
	seed(t, f.hub, "library/other", "v1", 1000)
	f.manifests()
	f.pull(f.members[0]).ends()
	pattern := "dray:fleet/v1/link/*/" + url.PathEscape("library/cold") + "/" + f.image.layer.String()
	f.eventually("fact about the layer", func() bool { return len(f.keys(pattern)) == 1 })
	key := f.keys(pattern)[0]
	forged := strings.Replace(key, "cold", "other", 1)
	_, value, _ := strings.Cut(f.redis.Do("GET", key), "\r\n")
	value = strings.TrimSuffix(value, "\r\n")
	if !strings.HasSuffix(value, `"k":"blob"}`) {
		t.Fatalf("the fact is %q", value)
	}
	plain := value[strings.LastIndex(value, " ")+1:]
	for i, text := range []string{value, plain} { // copied, and without a proof
		if got := f.redis.Do("SET", forged, text); !strings.HasPrefix(got, "+OK") {
			t.Fatal(got)
		}
		resp, err := get(t.Context(), f.members[i].url+"/v2/library/other/blobs/"+f.image.layer.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("with the fact %q: %s", text, resp.Status)
		}
	}
}

// ask sends a request without a body, and returns the status and the beginning of the answer.
func (f *fleetOf) ask(method, url string) (status int, text string) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, url, nil)
	if err != nil {
		f.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		f.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestFleetDrift has a member join whose upstream has another prefix. While it is there, all of
// them refuse pushes to the upstream, and say why. Pulls go on, and no fact is shared with it.
func TestFleetDrift(t *testing.T) {
	f := startFleet(t, 0, "whole", patient)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("secret of the fleet ", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	admins := map[*drayProcess]string{}
	join := func(prefix string) *drayProcess {
		admin := freeOn(t, "127.0.1.1")
		p := f.run(fmt.Sprintf(`
listeners: [{address: %q, role: registry}]
upstreams:
- {name: hub, url: "http://%s", default_namespace: library, push: true, repository_prefix: %q}
- {name: own, kind: local, prefixes: [own]}
metadata: {url: "redis://%s?dial_timeout=2m&read_timeout=2m&write_timeout=2m&pool_timeout=2m"}
fleet: {address: %q, secret_file: %q}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: %q}
log: {level: info, access: false}
`, freeOn(t, "127.0.1.1"), f.hub.RegistryAddr, prefix, f.redis.Addr, freeOn(t, "127.0.1.1"), secret, filepath.Join(t.TempDir(), "cache"), admin), patient)
		admins[p] = "http://" + admin + "/metrics"
		return p
	}
	upload := func(p *drayProcess, repo string) (int, string) {
		return f.ask(http.MethodPost, p.url+"/v2/"+repo+"/blobs/uploads/")
	}
	drifts := func(p *drayProcess, n int) bool {
		_, text := f.ask(http.MethodGet, admins[p])
		return strings.Contains(text, fmt.Sprintf("dray_fleet_drift{upstream=\"hub\"} %d\n", n))
	}
	a, b := join(""), join("")
	for _, p := range []*drayProcess{a, b} {
		f.eventually("look at the other member", func() bool { return drifts(p, 0) })
		if status, text := upload(p, "library/cold"); status != http.StatusAccepted {
			t.Fatalf("push to equal members: %d %s", status, text)
		}
	}
	other := join("elsewhere")
	for _, p := range []*drayProcess{a, b, other} {
		f.eventually("drift", func() bool { return drifts(p, 1) || p == other && drifts(p, 2) })
		status, text := upload(p, "library/cold")
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "pushes to hub are refused while members of the fleet differ") || !strings.Contains(text, "give all members the same configuration") {
			t.Errorf("push: %d %s", status, text)
		}
		if status, text := upload(p, "own/app"); status != http.StatusAccepted {
			t.Errorf("push to an upstream that is not shared: %d %s", status, text)
		}
	}
	// The other member does not know what the first one has learnt under the same name.
	if status, text := f.ask(http.MethodGet, a.url+"/v2/library/cold/manifests/v1"); status != http.StatusOK {
		t.Errorf("pull: %d %s", status, text)
	}
	if status, text := f.ask(http.MethodGet, other.url+"/v2/library/cold/manifests/v1"); status != http.StatusNotFound {
		t.Errorf("pull of what the other registry does not have: %d %s", status, text)
	}
	if err := other.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-other.done
	for _, p := range []*drayProcess{a, b} {
		f.eventually("end of the drift", func() bool { return drifts(p, 0) })
		if status, text := upload(p, "library/cold"); status != http.StatusAccepted {
			t.Errorf("push after the drift: %d %s", status, text)
		}
	}
}
