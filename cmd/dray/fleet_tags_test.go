package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// tagFleet is a fleet whose members know tags for an hour, and have metrics.
type tagFleet struct {
	*fleetOf
	secret, patience string
	admins           map[*drayProcess]string
}

// startTagFleet starts n members.
func startTagFleet(t *testing.T, n int, patience string) *tagFleet {
	t.Helper()
	f := &tagFleet{fleetOf: startFleet(t, 0, "whole", patience), secret: filepath.Join(t.TempDir(), "secret"), patience: patience, admins: map[*drayProcess]string{}}
	if err := os.WriteFile(f.secret, []byte(strings.Repeat("secret of the fleet ", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		f.join(f.redis.Addr)
	}
	f.know(n)
	return f
}

// join starts a member that reaches Redis at an address.
func (f *tagFleet) join(redis string) {
	f.Helper()
	bounds, host := "", fmt.Sprint("127.0.1.", len(f.members)+1)
	if f.patience == patient {
		bounds = "?dial_timeout=2m&read_timeout=2m&write_timeout=2m&pool_timeout=2m"
	}
	admin := freeOn(f, host)
	p := f.run(fmt.Sprintf(`
listeners: [{address: %q, role: registry}]
upstreams:
- {name: hub, url: "http://%s", default_namespace: library, push: true, prefetch: {enabled: false}, tags: {fresh: 1h, revalidate: 0s, stale: 24h, not_found: 1h}}
metadata: {url: "redis://%s%s"}
fleet: {address: %q, secret_file: %q}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: %q}
log: {level: info, access: false}
`, freeOn(f, host), f.hub.RegistryAddr, redis, bounds, freeOn(f, host), f.secret, filepath.Join(f.TempDir(), "cache"), admin), f.patience)
	f.members = append(f.members, p)
	f.admins[p] = "http://" + admin + "/metrics"
}

// know waits until each member knows that n are alive.
func (f *tagFleet) know(n int) {
	f.Helper()
	for _, p := range f.members {
		f.eventually(fmt.Sprint("knowledge of ", n, " members"), func() bool {
			_, text := f.ask(http.MethodGet, f.admins[p])
			return strings.Contains(text, fmt.Sprintf("\ndray_fleet_members %d\n", n))
		})
	}
}

// all has two clients of each member get something at once, and compares what they get.
func (f *tagFleet) all(path string, want []byte) {
	f.Helper()
	var clients sync.WaitGroup
	for _, p := range f.members {
		for range 2 {
			clients.Go(func() { f.gets(p, path, want) })
		}
	}
	clients.Wait()
}

func (f *tagFleet) gets(p *drayProcess, path string, want []byte) {
	f.Helper()
	resp, err := get(f.Context(), p.url+path, "")
	if err != nil {
		f.Error(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		f.Error(err)
	case want == nil && resp.StatusCode == http.StatusNotFound:
	case resp.StatusCode != http.StatusOK || string(body) != string(want):
		f.Errorf("GET %s%s: %s, %.300s", p.url, path, resp.Status, body)
	}
}

// spent compares the questions about manifests that the registry got with what they may be.
func (f *tagFleet) spent(what string, gets, heads int64) {
	f.Helper()
	<-f.hub.Idle()
	c := f.hub.Counters()
	if g, h := c[ecrtest.KindManifestGet].Requests, c[ecrtest.KindManifestHead].Requests; g != gets || h != heads {
		f.Errorf("%s: the registry got %d GET and %d HEAD of manifests, want %d and %d", what, g, h, gets, heads)
	}
	f.hub.ResetCounters()
}

// age makes all facts about tags in Redis older than an hour, and waits until no member has them in
// memory.
func (f *tagFleet) age() {
	f.Helper()
	keys := f.keys("dray:fleet/v1/tag/*")
	if len(keys) == 0 {
		f.Fatal("no facts about tags")
	}
	for _, key := range keys {
		_, text, _ := strings.Cut(f.redis.Do("GET", key), "\r\n")
		old := regexp.MustCompile(`"t":(\d+)`).ReplaceAllStringFunc(text, func(stamp string) string {
			n, _ := strconv.ParseInt(stamp[len(`"t":`):], 10, 64)
			return fmt.Sprint(`"t":`, n-int64(2*time.Hour))
		})
		if old == text {
			f.Fatalf("a fact without a date of Redis: %s", text)
		}
		if got := f.redis.Do("SET", key, strings.TrimSuffix(old, "\r\n"), "KEEPTTL"); !strings.HasPrefix(got, "+OK") {
			f.Fatal(got)
		}
	}
	time.Sleep(1100 * time.Millisecond) // memory is at most a second old
}

const manifestPath = "/v2/library/%s/manifests/%s"

// TestFleetManifests has clients of all members pull a tag, an index and what it names. The
// registry is asked once for each, and once more when the window of the tag has ended.
func TestFleetManifests(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := startTagFleet(t, n, patient)
			cold, child := f.image.manifest, seed(t, f.hub, "library/cold", "child", 1000).manifest
			index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIIndex, "manifests": []map[string]any{
				{"mediaType": child.MediaType, "digest": child.Digest, "size": len(child.Raw)},
			}})
			if err != nil {
				t.Fatal(err)
			}
			f.hub.SeedManifest("library/cold", "index", oci.MediaTypeOCIIndex, digest.FromBytes(index), index)
			f.hub.ResetCounters()

			f.all(fmt.Sprintf(manifestPath, "cold", "v1"), cold.Raw)
			f.spent("cold tag", 1, 0)
			f.all(fmt.Sprintf(manifestPath, "cold", cold.Digest), cold.Raw)
			f.all(fmt.Sprintf(manifestPath, "cold", "v1"), cold.Raw)
			f.spent("warm tag and digest", 0, 0)

			f.gets(f.members[0], fmt.Sprintf(manifestPath, "cold", "index"), index)
			f.all(fmt.Sprintf(manifestPath, "cold", digest.FromBytes(index)), index)
			f.spent("index, by tag at one member and by digest at all", 1, 0)
			f.all(fmt.Sprintf(manifestPath, "cold", child.Digest), child.Raw)
			f.spent("manifest of the index", 1, 0)

			f.all(fmt.Sprintf(manifestPath, "cold", "none"), nil)
			f.spent("missing tag", 1, 0)
			// Bytes that members hold say nothing about another repository.
			seed(t, f.hub, "library/other", "v1", 1000)
			f.all(fmt.Sprintf(manifestPath, "other", cold.Digest), nil)
			f.hub.ResetCounters()

			f.age()
			f.all(fmt.Sprintf(manifestPath, "cold", "v1"), cold.Raw)
			f.spent("tag after its window", 0, 1)
			moved := seed(t, f.hub, "library/cold", "v1", 2000).manifest
			f.age()
			f.all(fmt.Sprintf(manifestPath, "cold", "v1"), moved.Raw)
			f.spent("tag that has moved", 1, 1)
		})
	}
}

// TestFleetTagOfStoppedMember has the member stopped that asks for all. The others ask for
// themselves.
func TestFleetTagOfStoppedMember(t *testing.T) {
	f := startTagFleet(t, 3, "500ms")
	images := map[string][]byte{}
	for i := range 6 { // so that the stopped member would ask for some of them
		tag := fmt.Sprint("t", i)
		images[tag] = seed(t, f.hub, "library/cold", tag, 100).manifest.Raw
	}
	stopped := f.members[2]
	if err := stopped.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.members = f.members[:2]
	for tag, raw := range images {
		f.all(fmt.Sprintf(manifestPath, "cold", tag), raw)
	}
}

// cut is a way to Redis that can be cut.
type cut struct {
	t      testing.TB
	addr   string
	to     string
	mu     sync.Mutex
	off    bool
	open   map[net.Conn]bool
	serves sync.WaitGroup
}

func newCut(t testing.TB, to string) *cut {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cut{t: t, addr: l.Addr().String(), to: to, open: map[net.Conn]bool{}}
	c.serves.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.serves.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.set(true); c.serves.Wait() })
	return c
}

// set cuts the way, or restores it.
func (c *cut) set(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
	for conn := range c.open {
		if off {
			_ = conn.Close()
		}
	}
}

// keep notes a connection, and closes it if the way is cut.
func (c *cut) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		_ = conn.Close()
		return false
	}
	c.open[conn] = true
	return true
}

func (c *cut) serve(in net.Conn) {
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		_ = in.Close()
		return
	}
	if !c.keep(in) || !c.keep(out) {
		_ = in.Close()
		_ = out.Close()
		return
	}
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{in: out, out: in} {
		both.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		})
	}
	both.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, in)
	delete(c.open, out)
}

// push pushes a manifest whose blobs the registry has.
func (f *tagFleet) push(p *drayProcess, tag string, m *oci.Manifest) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodPut, p.url+fmt.Sprintf(manifestPath, "cold", tag), strings.NewReader(string(m.Raw)))
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Content-Type", m.MediaType)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(resp.Body)
		f.Fatalf("push through %s: %s %s", p.url, resp.Status, body)
	}
}

// TestFleetTagAfterCut cuts a member off from Redis while both members take pushes. When it is
// back, it overwrites nothing, and everybody has what was pushed last.
func TestFleetTagAfterCut(t *testing.T) {
	f := startTagFleet(t, 0, "2s")
	way := newCut(t, f.redis.Addr)
	f.join(way.addr)
	f.join(f.redis.Addr)
	f.know(2)
	off, on := f.members[0], f.members[1]
	first, second, third := f.image.manifest, seed(t, f.hub, "library/cold", "second", 100).manifest, seed(t, f.hub, "library/cold", "third", 200).manifest
	path := func(tag string) string { return fmt.Sprintf(manifestPath, "cold", tag) }
	f.push(on, "mine", first)
	f.push(on, "yours", first)
	time.Sleep(1100 * time.Millisecond) // memory is at most a second old
	for _, tag := range []string{"mine", "yours"} {
		f.all(path(tag), first.Raw)
	}

	way.set(true)
	f.push(off, "mine", second) // by one of the two, which cannot agree who it is
	f.push(on, "yours", second)
	f.gets(on, path("yours"), second.Raw)
	f.gets(off, path("third"), third.Raw) // a fact that Redis does not get
	f.push(on, "third", second)
	f.gets(on, path("third"), second.Raw)

	way.set(false)
	f.eventually("use of Redis by the member that was cut off", func() bool {
		f.ask(http.MethodGet, off.url+path("mine"))
		return f.connected(off)
	})
	time.Sleep(1100 * time.Millisecond)
	for _, tag := range []string{"mine", "yours", "third"} { // also where they were known from before
		f.all(path(tag), second.Raw)
	}
}

// connected reports whether a member uses Redis.
func (f *tagFleet) connected(p *drayProcess) bool {
	_, text := f.ask(http.MethodGet, f.admins[p])
	return strings.Contains(text, "\ndray_meta_up 1\n")
}
