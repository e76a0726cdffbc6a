package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta/metatest"
	"dray/upstream/ecrtest"
)

// fleetOf is several drays in processes of their own, before one registry and one Redis. Clients
// ask once and compare digests.
type fleetOf struct {
	*testing.T
	redis   *metatest.RedisServer
	hub     *ecrtest.Running
	image   seeded
	size    int64
	members []*drayProcess
	env     []string // of members, besides
}

// drayProcess is one dray.
type drayProcess struct {
	*exec.Cmd
	url, admin string
	done       chan struct{}
}

// patient is the patience of drays that take a slow machine neither for a failed member nor for a
// failed Redis.
const patient = "2m"

// startFleet starts n drays, which fetch layers as fill says, "whole" or in "parallel" parts. A
// member that does not say for so long that it is alive counts as dead. The zones are those of the
// members; further ones have none.
func startFleet(t *testing.T, n int, fill, patience string, zones ...string) *fleetOf {
	t.Helper()
	f := &fleetOf{T: t, redis: metatest.StartRedis(t), hub: ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})}
	f.image = seed(t, f.hub, "library/cold", "v1", 3<<20)
	f.size = f.image.manifest.Layers[0].Size
	secret := f.secret()
	for i := range n {
		f.members = append(f.members, f.start(i+1, secret, fill, patience, append(zones, make([]string, n)...)[i]))
	}
	return f
}

// secret returns a file with the secret of the fleet.
func (f *fleetOf) secret() string {
	f.Helper()
	file := filepath.Join(f.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Repeat("secret of the fleet ", 2)), 0o600); err != nil {
		f.Fatal(err)
	}
	return file
}

func (f *fleetOf) start(i int, secret, fill, patience, zone string) *drayProcess {
	f.Helper()
	dir, host := f.TempDir(), fmt.Sprint("127.0.1.", i)
	redisBounds := ""
	if patience == patient {
		redisBounds = "?dial_timeout=2m&read_timeout=2m&write_timeout=2m&pool_timeout=2m"
	}
	text := fmt.Sprintf(`
listeners: [{address: %q}]
upstreams:
- {name: hub, url: "http://%s", default_namespace: library, prefetch: {enabled: false}, parallel_fill: {threshold: 1MiB, piece: 256KiB, streams: STREAMS}}
metadata: {url: "redis://%s%s"}
fleet: {address: %q, secret_file: %q, zone: %q}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: %q}
log: {level: info, access: false}
`, freeOn(f, host), f.hub.RegistryAddr, f.redis.Addr, redisBounds, freeOn(f, host), secret, zone, filepath.Join(dir, "cache"), freeOn(f, host))
	streams := "1"
	if fill == "parallel" {
		streams = "4"
	}
	return f.run(strings.Replace(text, "STREAMS", streams, 1), patience)
}

// run starts a dray with a configuration, whose first quoted value is the address of its listener.
func (f *fleetOf) run(text, patience string) *drayProcess {
	f.Helper()
	path := filepath.Join(f.TempDir(), "dray.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
	p := &drayProcess{Cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	words := strings.Split(text, `"`)
	p.url, p.admin = "http://"+words[1], "http://"+words[len(words)-2]
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), asDray + "=serve --config " + path, asPatient + "=" + patience}
	p.Env = append(p.Env, f.env...)
	p.Stdout, p.Stderr = f.Output(), f.Output()
	if err := p.Start(); err != nil {
		f.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.Wait() }()
	f.Cleanup(func() { _ = p.Process.Kill(); <-p.done })
	f.eventually("start", func() bool {
		resp, err := http.Get(p.url + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	return p
}

func freeOn(t testing.TB, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for a condition. The bound is for a test that fails.
func (f *fleetOf) eventually(what string, done func() bool) {
	f.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.Fatalf("no %s", what)
		}
	}
}

// manifests has clients of all members pull the manifest, as clients do before they pull layers. So
// each member knows how long the layer is. Otherwise a parallel fill begins by a request for all of
// it, most of which nobody reads.
func (f *fleetOf) manifests() {
	f.Helper()
	for _, p := range f.members {
		resp, err := get(f.Context(), p.url+"/v2/library/cold/manifests/v1", "")
		if err != nil {
			f.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			f.Fatalf("manifest: %s", resp.Status)
		}
	}
}

// pulling is a client that reads the layer. It never asks twice.
type pulling struct {
	fleet *fleetOf
	at    *drayProcess
	read  atomic.Int64
	done  chan error
}

// pull starts a client of a member.
func (f *fleetOf) pull(p *drayProcess) *pulling {
	c := &pulling{fleet: f, at: p, done: make(chan error, 1)}
	go func() { c.done <- c.run() }()
	return c
}

func (c *pulling) run() error {
	resp, err := get(c.fleet.Context(), c.at.url+"/v2/library/cold/blobs/"+c.fleet.image.layer.String(), "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET: %s", resp.Status)
	}
	sum := digest.Canonical.Digester()
	_, err = io.Copy(io.MultiWriter(sum.Hash(), c), resp.Body)
	if err == nil && sum.Digest() != c.fleet.image.layer {
		err = fmt.Errorf("%d bytes have the digest %s", c.read.Load(), sum.Digest())
	}
	return err
}

// Write counts the bytes that the client has read.
func (c *pulling) Write(p []byte) (int, error) { c.read.Add(int64(len(p))); return len(p), nil }

func (c *pulling) reaches(n int64) {
	c.fleet.Helper()
	c.fleet.eventually(fmt.Sprint(n, " bytes at ", c.at.url), func() bool { return c.read.Load() >= n })
}

func (c *pulling) ends() {
	c.fleet.Helper()
	if err := <-c.done; err != nil {
		c.fleet.Errorf("pull from %s: %v", c.at.url, err)
	}
}

func get(ctx context.Context, url, byteRange string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	return http.DefaultTransport.RoundTrip(req)
}

// hold makes the registry send no more than the first bytes of the layer in each of some answers.
// Its result ends that.
func (f *fleetOf) hold(at int64, answers int) (release func()) {
	id := f.hub.AddFault(ecrtest.Fault{Blob: f.image.layer, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, HoldAt: ecrtest.At(at), Count: answers})
	return func() { f.hub.RemoveFault(id) }
}

// sent is what the registry has sent of blobs, in lengths of the layer, and how often it was asked.
func (f *fleetOf) sent() (layers float64, requests int64) {
	<-f.hub.Idle()
	c := f.hub.Counters()[ecrtest.KindObjectGet]
	return float64(c.BytesOut) / float64(f.size), c.Requests
}

// together has two clients of each member pull the layer, and read while it arrives.
func (f *fleetOf) together(fill string) {
	f.Helper()
	if fill == "parallel" {
		f.manifests()
		f.atOnce(64<<10, -1)
		return
	}
	f.atOnce(f.size/2, 1)
}

// atOnce has two clients of each member pull the layer, and read half of what the registry sends
// before it holds some answers.
func (f *fleetOf) atOnce(at int64, answers int) {
	f.Helper()
	release := f.hold(at, answers)
	var clients []*pulling
	for _, p := range f.members {
		clients = append(clients, f.pull(p), f.pull(p))
	}
	for _, c := range clients {
		c.reaches(at / 2)
	}
	release()
	for _, c := range clients {
		c.ends()
	}
}

// TestFleet has clients of all members pull a cold layer. The registry sends it once.
func TestFleet(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for _, fill := range []string{"whole", "parallel"} {
			t.Run(fmt.Sprint(n, " members, ", fill), func(t *testing.T) {
				f := startFleet(t, n, fill, patient)
				f.together(fill)
				if layers, requests := f.sent(); layers > 1.01 || layers < 1 {
					t.Errorf("the registry sent %.3f times the layer, in %d answers", layers, requests)
				}
			})
		}
	}
}

// TestFleetRanges has clients of all members read random ranges of a cold layer.
func TestFleetRanges(t *testing.T) {
	f := startFleet(t, 3, "parallel", patient)
	whole, ok := f.hub.Blob(f.image.layer)
	if !ok {
		t.Fatal("the registry lacks the layer")
	}
	f.manifests()
	rnd := rand.New(rand.NewPCG(1, 2))
	var clients sync.WaitGroup
	for _, p := range f.members {
		for range 20 {
			from := rnd.Int64N(f.size)
			to := from + rnd.Int64N(f.size-from)
			clients.Go(func() {
				resp, err := get(t.Context(), p.url+"/v2/library/cold/blobs/"+f.image.layer.String(), fmt.Sprintf("bytes=%d-%d", from, to))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusPartialContent || string(got) != string(whole[from:to+1]) {
					t.Errorf("bytes %d to %d: %s, %d bytes, %v", from, to, resp.Status, len(got), err)
				}
			})
		}
	}
	clients.Wait()
	if layers, requests := f.sent(); layers > 1.01 {
		t.Errorf("the registry sent %.3f times the layer, in %d answers", layers, requests)
	}
}

// TestFleetOthersHold has the holder killed when each of three followers has received all that the
// holder had. The registry is asked for the rest alone, to the byte.
func TestFleetOthersHold(t *testing.T) {
	f := startFleet(t, 4, "whole", patient)
	half := f.size / 2
	f.hold(half, 1)
	holder := f.pull(f.members[0])
	holder.reaches(half)
	var clients []*pulling
	for _, p := range f.members[1:] {
		c := f.pull(p)
		c.reaches(half)
		clients = append(clients, c)
	}
	if err := f.members[0].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		c.ends()
	}
	<-holder.done
	<-f.hub.Idle()
	sent, held := int64(0), false
	for _, e := range f.hub.Log() {
		if e.Kind == ecrtest.KindObjectGet && held {
			sent += e.BytesOut
		}
		held = held || e.Kind == ecrtest.KindObjectGet // the answer to the holder
	}
	if sent != f.size-half {
		t.Errorf("the registry sent %d bytes, of which nobody held %d", sent, f.size-half)
	}
}

// value returns the value of a metric of a member.
func (p *drayProcess) value(t *testing.T, metric string) float64 {
	t.Helper()
	resp, err := get(t.Context(), p.admin+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, metric+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s", metric)
	return 0
}

// TestFleetZones has clients of members in three zones pull a cold layer. It crosses once into each
// other zone.
func TestFleetZones(t *testing.T) {
	for _, fill := range []string{"whole", "parallel"} {
		t.Run(fill, func(t *testing.T) {
			f := startFleet(t, 6, fill, patient, "a", "a", "b", "b", "c", "c")
			f.together(fill)
			crossed := 0.0
			for _, p := range f.members {
				crossed += p.value(t, `dray_fleet_received_bytes_total{zone="other"}`)
			}
			if layers, _ := f.sent(); layers > 1.01 || crossed != 2*float64(f.size) {
				t.Errorf("the registry sent %.3f times the layer, and %.3f times of it went to another zone", layers, crossed/float64(f.size))
			}
		})
	}
}

// TestFleetLongAgo has a member asked for a layer that another one has fetched, and that no lease
// shows any more. The registry is not asked for it.
func TestFleetLongAgo(t *testing.T) {
	f := startFleet(t, 2, "whole", patient)
	f.pull(f.members[0]).ends()
	_, before := f.sent()
	lease := "dray:{fleet}:lease:" + f.image.layer.String()
	f.redis.Do("HSET", lease, "m", "nobody", "a", "127.0.0.1:1", "g", "1") // so that the holder forgets it
	renewals, last := 0, ""
	f.eventually("renewal", func() bool { // of both members, so that each knows the other
		now := f.redis.Do("HVALS", "dray:{fleet}:members")
		if now != last {
			renewals, last = renewals+1, now
		}
		return renewals > 3 && f.members[0].value(t, "dray_fleet_leases") == 0
	})
	f.redis.Do("DEL", lease)
	f.pull(f.members[1]).ends()
	if _, requests := f.sent(); requests != before {
		t.Errorf("the registry was asked %d times more", requests-before)
	}
}

// TestFleetHolderFails has the holder killed, or stopped, in the middle of a layer. No pull from
// another member fails, and the registry sends what nobody had.
func TestFleetHolderFails(t *testing.T) {
	for _, c := range []struct {
		name, patience string
		members        int
		signal         syscall.Signal
	}{
		{"killed", patient, 3, syscall.SIGKILL}, {"stopped", "500ms", 2, syscall.SIGSTOP},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFleet(t, c.members, "whole", c.patience)
			f.hold(f.size/2, 1) // the answer to the holder alone
			holder := f.members[0]
			first := f.pull(holder)
			first.reaches(f.size / 4)
			var clients []*pulling
			for _, p := range f.members[1:] {
				clients = append(clients, f.pull(p), f.pull(p))
			}
			for _, c := range clients {
				c.reaches(f.size/2 - 256<<10) // all that the holder has but for what readers are woken late for
			}
			if err := holder.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				c.ends()
			}
			got := f.hub.Counters()[ecrtest.KindObjectGet]
			layers := float64(got.BytesOut) / float64(f.size)
			t.Logf("the registry sent %.3f times the layer, in %d answers", layers, got.Requests)
			if layers > 1.2 || got.Requests != 2 {
				t.Errorf("the registry sent %.3f times the layer, in %d answers", layers, got.Requests)
			}
			_ = holder.Process.Kill()
			<-first.done
		})
	}
}

// TestFleetWithoutRedis has Redis flushed, and killed, in the middle of a layer, and away before
// the next one. No pull fails.
func TestFleetWithoutRedis(t *testing.T) {
	f := startFleet(t, 3, "whole", "500ms")
	release := f.hold(f.size/2, -1)
	var clients []*pulling
	pull := func(p *drayProcess) {
		c := f.pull(p)
		c.reaches(f.size / 4)
		clients = append(clients, c)
	}
	pull(f.members[0])
	f.redis.Do("FLUSHALL")
	pull(f.members[1])
	f.redis.Kill()
	pull(f.members[2])
	release()
	for _, c := range clients {
		c.ends()
	}
	f.redis.Start()
	layers, requests := f.sent()
	t.Logf("the registry sent %.3f times the layer, in %d answers", layers, requests)
	if layers > float64(len(f.members))+0.01 {
		t.Errorf("the registry sent %.3f times the layer", layers)
	}
}

// TestFleetPrivate has a layer of a private repository on its way to one member, and clients of
// another member name it in a repository that does not have it.
func TestFleetPrivate(t *testing.T) {
	f := startFleet(t, 2, "whole", patient)
	seed(t, f.hub, "library/other", "v1", 1000)
	release := f.hold(f.size/2, -1)
	owner := f.pull(f.members[0])
	owner.reaches(f.size / 4)
	thief := f.members[1].url + "/v2/library/other/blobs/" + f.image.layer.String()
	refused := func() {
		t.Helper()
		for _, byteRange := range []string{"", "bytes=0-9", "bytes=1000000-"} {
			resp, err := get(t.Context(), thief, byteRange)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("GET %s: %s, %d bytes", byteRange, resp.Status, len(body))
			}
		}
		resp, err := http.Head(thief)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("HEAD: %s", resp.Status)
		}
	}
	refused()
	// The repository that has it gets it from the other member meanwhile, whatever was refused.
	second := f.pull(f.members[1])
	second.reaches(f.size / 4)
	refused()
	release()
	owner.ends()
	second.ends()
	refused()
	if layers, requests := f.sent(); layers > 1.01 {
		t.Errorf("the registry sent %.3f times the layer, in %d answers", layers, requests)
	}
}
