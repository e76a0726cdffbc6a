// Package mirrortest has a fixture for tests of a mirror or of one of its rooms: a mirror with a
// temporary directory, a registry in memory, and a client. Tests can make the disk and the store of
// facts fail.
package mirrortest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror"
	"dray/mirror/identity"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/upstream/oci"
)

// Fixture is a Mirror with its dependencies.
type Fixture struct {
	testing.TB
	// Listener gets the requests of Do. It accepts pushes from everybody.
	Listener *mirror.Listener
	Mirror   *mirror.Mirror
	// Upstream is the only upstream. Its name is "up". Its parts may be replaced before the first
	// request.
	Upstream *repository.Upstream
	Registry *Registry
	Cache    *cache.Cache
	Disk     *disk.Dir
	// Facts is the store of facts, and Memory the store behind it, which does not fail.
	Facts      *metatest.Faulty
	Memory     *metatest.Memory
	Tags       *meta.Tags
	Visibility *meta.Visibility

	options Options
	path    string
	stop    func()
	broken  atomic.Value // of disk.Op
}

// Options configure a Fixture. The zero value is usable.
type Options struct {
	// MemoryBytes is the memory for small content; 0 means almost none.
	MemoryBytes int64
	// Before, when not nil, wraps the store of facts.
	Before func(meta.Store) meta.Store
	// Change, when not nil, changes the Options of the Mirror.
	Change func(*Fixture, *mirror.Options)
}

// ErrBroken is the error with which a step of the disk fails after Break.
var ErrBroken = errors.New("this step fails")

// New returns a running Fixture, which ends with its test.
func New(t testing.TB, o Options) *Fixture {
	t.Helper()
	f := &Fixture{TB: t, Memory: metatest.NewMemory(), Registry: NewRegistry(), options: o, path: filepath.Join(t.TempDir(), "content")}
	f.Facts = metatest.NewFaulty(f.Memory)
	f.Break("")
	f.Upstream = &repository.Upstream{
		Name: "up", Registry: "up.example", Source: f.Registry, Sink: f.Registry, Lister: f.Registry, Tags: repository.TagPolicy{Fresh: time.Hour, Stale: time.Hour},
	}
	f.start()
	t.Cleanup(func() { f.stop() })
	return f
}

// Restart stops the mirror and starts another one on the same directory and facts.
func (f *Fixture) Restart() {
	f.Helper()
	f.stop()
	f.start()
}

func (f *Fixture) start() {
	f.Helper()
	var err error
	f.Disk, err = disk.Open(disk.Options{Path: f.path, Fault: func(op disk.Op, _ string) error {
		if f.broken.Load() == op {
			return ErrBroken
		}
		return nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cache = cache.New(cache.Options{Disk: f.Disk, MemoryBytes: cmp.Or(f.options.MemoryBytes, 1)})
	facts := meta.Store(f.Facts)
	if f.options.Before != nil {
		facts = f.options.Before(facts)
	}
	f.Tags, f.Visibility = meta.NewTags(facts, meta.Options{}), meta.NewVisibility(facts, meta.Options{})
	o := mirror.Options{
		Cache: f.Cache, Tags: f.Tags, Visibility: f.Visibility, Presence: meta.NewPresence(facts, meta.PresenceOptions{}), LastPulls: meta.NewLastPulls(facts, meta.Options{}),
		Replaceable: mirror.Replaceable{Upstreams: []*repository.Upstream{f.Upstream}},
	}
	if f.options.Change != nil {
		f.options.Change(f, &o)
	}
	var stop func()
	f.Mirror, stop = Run(f, o)
	f.Listener = &mirror.Listener{Mirror: f.Mirror, Listener: request.Listener{
		Name: "l", Routes: &route.Table{Order: []route.Route{{Upstream: "up"}}}, Policy: identity.Policy{Role: identity.RoleRegistry, AllowAnonymousPush: true},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.Cache.Run(ctx) })
	f.stop = func() {
		cancel()
		stop()
		wg.Wait()
		if err := f.Disk.Close(); err != nil {
			f.Error(err)
		}
	}
}

// Run runs a Mirror until the caller calls stop, which returns when the Mirror has ended.
func Run(t testing.TB, o mirror.Options) (m *mirror.Mirror, stop func()) {
	t.Helper()
	m, err := mirror.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	return m, func() { cancel(); wg.Wait() }
}

// Break makes a step of the disk fail. For "", no step fails.
func (f *Fixture) Break(step disk.Op) { f.broken.Store(step) }

// Counted is the function Counted for the collectors of the mirror.
func (f *Fixture) Counted(name string) float64 {
	f.Helper()
	return Counted(f, f.Mirror.Collectors(), name)
}

// Counted returns the value of a counter or gauge of some collectors, summed over its labels.
func Counted(t testing.TB, all []prometheus.Collector, name string) (sum float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return sum
}

// Until waits for background work of the mirror. It calls the function condition until this
// function returns true. After 1000 calls, which take at least five seconds, Until fails the test.
func (f *Fixture) Until(condition func() bool) {
	f.Helper()
	for range 1000 {
		if condition() {
			return
		}
		<-time.After(5 * time.Millisecond) // nothing tells the test that the mirror's work is done
	}
	f.Fatal("the work in the background does not end")
}

// Do sends one request from this machine to the listener. headers are alternating names and
// values.
func (f *Fixture) Do(method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	f.Helper()
	r := httptest.NewRequestWithContext(f.Context(), method, path, bytes.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	f.Listener.ServeHTTP(w, r)
	return w
}

// Want is Do for a request whose answer must have the given status.
func (f *Fixture) Want(status int, method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	f.Helper()
	w := f.Do(method, path, body, headers...)
	if w.Code != status {
		f.Fatalf("%s %s: %d, want %d\n%s", method, path, w.Code, status, w.Body)
	}
	return w
}

// Image returns the manifest of an image.
func Image(t testing.TB, layers ...[]byte) *oci.Manifest {
	t.Helper()
	var all []string
	for _, l := range layers {
		all = append(all, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromBytes(l), len(l)))
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[%s]}`, oci.MediaTypeOCIManifest, strings.Join(all, ","))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Hold adds an image to the registry.
func (f *Fixture) Hold(repo, tag string, layers ...[]byte) *oci.Manifest {
	f.Helper()
	m := Image(f, layers...)
	f.Registry.HoldManifest(repo, tag, m)
	for _, l := range layers {
		f.Registry.HoldBlob(repo, l)
	}
	return m
}

// Pull pulls an image twice, each time the manifest by tag and by digest, and the layer in full and
// in part. It compares the bytes.
func (f *Fixture) Pull(repo, tag string, m *oci.Manifest, layer []byte) {
	f.Helper()
	for range 2 {
		for _, ref := range []string{tag, m.Digest.String()} {
			if w := f.Want(200, "GET", "/v2/"+repo+"/manifests/"+ref, nil); !bytes.Equal(w.Body.Bytes(), m.Raw) {
				f.Errorf("%s: another manifest", ref)
			}
		}
		path := "/v2/" + repo + "/blobs/" + digest.FromBytes(layer).String()
		if w := f.Want(200, "GET", path, nil); !bytes.Equal(w.Body.Bytes(), layer) {
			f.Errorf("another blob of %d bytes", w.Body.Len())
		}
		if w := f.Want(206, "GET", path, nil, "Range", "bytes=10-19"); !bytes.Equal(w.Body.Bytes(), layer[10:20]) {
			f.Error("another range")
		}
	}
}

// Push pushes an image, and compares the bytes in the registry.
func (f *Fixture) Push(repo, tag string, layer []byte) *oci.Manifest {
	f.Helper()
	at := f.Want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header().Get("Location")
	f.Want(201, "PUT", at+"?digest="+digest.FromBytes(layer).String(), layer)
	m := Image(f, layer)
	f.Want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, "Content-Type", m.MediaType)
	if got, err := f.Registry.HeldBlob(repo, digest.FromBytes(layer)); err != nil || !bytes.Equal(got, layer) {
		f.Errorf("the upstream has %d bytes, %v", len(got), err)
	}
	return m
}
