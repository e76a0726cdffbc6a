package live_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/mirror/admin/api"
	"dray/mirror/live"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func digestOf(name string) digest.Digest { return digest.FromString(name) }

func descriptor(name, mediaType string) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: digestOf(name), Size: 100}
}

// manifestOf returns the manifest with a name. That of an index is "index:" and the names of its
// manifests, and that of an image is the names of its layers.
func manifestOf(name string) *live.Manifest {
	return &live.Manifest{Digest: digestOf(name), MediaType: "m", Size: 7, Parse: func() *oci.Manifest {
		m := &oci.Manifest{Digest: digestOf(name), MediaType: oci.MediaTypeOCIManifest}
		if parts, ok := strings.CutPrefix(name, "index:"); ok {
			m.MediaType = oci.MediaTypeOCIIndex
			for p := range strings.SplitSeq(parts, "|") {
				m.Manifests = append(m.Manifests, descriptor(p, oci.MediaTypeOCIManifest))
			}
			return m
		}
		config := descriptor("config of "+name, oci.MediaTypeOCIConfig)
		m.Config = &config
		for l := range strings.SplitSeq(name, ",") {
			m.Layers = append(m.Layers, descriptor(l, "application/vnd.oci.image.layer.v1.tar+gzip"))
		}
		return m
	}}
}

// world is a table that runs, and the pulls that have ended.
type world struct {
	*live.Table
	mu    sync.Mutex // guards ended
	ended []string
}

func run(t *testing.T) *world {
	w := &world{}
	w.Table = live.New(live.Options{OnPull: func(p live.Ended) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = append(w.ended, line(p.LivePull))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

// do sends a request: "ann@10.0.0.1 GET repo:tag=MANIFEST", with @ for a digest, or "… GET
// repo/LAYER".
func (w *world) do(text string) (k live.Track) {
	f := strings.Fields(text)
	user, addr, _ := strings.Cut(f[0], "@")
	o := live.Owner{Addr: netip.MustParseAddr(addr), User: user, Upstream: "up"}
	k = w.Track()
	what := strings.Join(f[2:], " ")
	i := strings.IndexAny(what, ":@/")
	o.Repository = what[:i]
	switch rest := what[i+1:]; what[i] {
	case '/':
		k.Blob(o, "agent", digestOf(rest))
		k.Sent("disk").Add(50)
	case '@':
		m := manifestOf(rest)
		k.Manifest(o, "agent", m.Digest.String(), f[1] == "GET", m)
	default:
		tag, name, _ := strings.Cut(rest, "=")
		k.Manifest(o, "agent", tag, f[1] == "GET", manifestOf(name))
	}
	return k
}

func line(p api.LivePull) string {
	ref := p.Reference
	if strings.Contains(ref, ":") {
		ref = "digest"
	}
	return fmt.Sprintf("%s@%s %s:%s %d of %d %s", p.User, p.Client, p.Repository, ref, p.Layers.Asked, p.Layers.Of, p.State)
}

func (w *world) pulls() (all []string) {
	for _, p := range w.Snapshot().Pulls {
		all = append(all, line(p))
	}
	return all
}

// TestGrouping sends requests that have ended, and looks at which pulls they make.
func TestGrouping(t *testing.T) {
	for name, c := range map[string]struct{ requests, pulls []string }{
		"an image by tag": {
			[]string{"@10.0.0.1 GET app:v1=a,b,c", "@10.0.0.1 GET app/config of a,b,c", "@10.0.0.1 GET app/a", "@10.0.0.1 GET app/c"},
			[]string{"@10.0.0.1 app:v1 2 of 3 idle"},
		},
		"an index, then the manifest of a platform": {
			[]string{"@10.0.0.1 GET app:v1=index:a,b|c,d,e", "@10.0.0.1 GET app@c,d,e", "@10.0.0.1 GET app/d"},
			[]string{"@10.0.0.1 app:v1 1 of 3 idle"},
		},
		"all platforms, with a layer in common": {
			[]string{"@10.0.0.1 GET app:v1=index:a,b|b,c", "@10.0.0.1 GET app@a,b", "@10.0.0.1 GET app/b", "@10.0.0.1 GET app@b,c", "@10.0.0.1 GET app/c"},
			[]string{"@10.0.0.1 app:v1 2 of 3 idle"},
		},
		"a tag by HEAD, and the rest by digest": {
			[]string{"@10.0.0.1 HEAD app:v1=index:a,b|c", "@10.0.0.1 GET app@index:a,b|c", "@10.0.0.1 GET app@a,b", "@10.0.0.1 GET app/a"},
			[]string{"@10.0.0.1 app:v1 1 of 2 idle"},
		},
		"a tag by HEAD, and only layers that the node lacks": {
			[]string{"@10.0.0.1 HEAD app:v1=a,b", "@10.0.0.1 GET app/b"},
			[]string{"@10.0.0.1 app:v1 1 of 2 idle"},
		},
		"HEAD alone": {[]string{"@10.0.0.1 HEAD app:v1=a,b", "@10.0.0.1 HEAD app:v1=a,b"}, nil},
		"all layers are on the node": {
			[]string{"@10.0.0.1 GET app:v1=a,b"},
			[]string{"@10.0.0.1 app:v1 0 of 2 idle"},
		},
		"ranges of one layer": {
			[]string{"@10.0.0.1 GET app@a,b", "@10.0.0.1 GET app/a", "@10.0.0.1 GET app/a", "@10.0.0.1 GET app/a"},
			[]string{"@10.0.0.1 app:digest 1 of 2 idle"},
		},
		"two users behind one address": {
			[]string{"ann@10.0.0.1 GET app:v1=a,b", "bob@10.0.0.1 GET app:v1=a,b", "bob@10.0.0.1 GET app/a", "ann@10.0.0.1 GET app/a", "ann@10.0.0.1 GET app/b"},
			[]string{"ann@10.0.0.1 app:v1 2 of 2 idle", "bob@10.0.0.1 app:v1 1 of 2 idle"},
		},
		"two addresses": {
			[]string{"@10.0.0.1 GET app:v1=a", "@10.0.0.2 GET app:v1=a", "@10.0.0.2 GET app/a"},
			[]string{"@10.0.0.1 app:v1 0 of 1 idle", "@10.0.0.2 app:v1 1 of 1 idle"},
		},
		"two repositories": {
			[]string{"@10.0.0.1 GET app:v1=a", "@10.0.0.1 GET web:v1=a", "@10.0.0.1 GET app/a"},
			[]string{"@10.0.0.1 app:v1 1 of 1 idle", "@10.0.0.1 web:v1 0 of 1 idle"},
		},
		"two images of a repository at a time": {
			[]string{"@10.0.0.1 GET app:v1=a,b", "@10.0.0.1 GET app:v2=c,d", "@10.0.0.1 GET app/a", "@10.0.0.1 GET app/d", "@10.0.0.1 GET app/b"},
			[]string{"@10.0.0.1 app:v1 2 of 2 idle", "@10.0.0.1 app:v2 1 of 2 idle"},
		},
		"one image by two tags": {
			[]string{"@10.0.0.1 GET app:v1=a,b", "@10.0.0.1 GET app:v2=a,b"},
			[]string{"@10.0.0.1 app:v1 0 of 2 idle"},
		},
		"a moved tag": {
			[]string{"@10.0.0.1 GET app:v1=a,b", "@10.0.0.1 GET app:v1=c", "@10.0.0.1 GET app/c"},
			[]string{"@10.0.0.1 app:v1 0 of 2 idle", "@10.0.0.1 app:v1 1 of 1 idle"},
		},
		"blobs of an image that was not asked for": {
			[]string{"@10.0.0.1 GET app/a", "@10.0.0.1 GET app/b", "@10.0.0.1 GET app/a"},
			[]string{"@10.0.0.1 app: 2 of 0 idle"},
		},
		"more manifests than are recognised": {
			many("@10.0.0.1 GET app:v1=index:%s", "@10.0.0.1 GET app@l%d", 40),
			[]string{"@10.0.0.1 app:v1 0 of 15 idle"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := run(t)
				for _, r := range c.requests {
					k := w.do(r)
					k.End("", "id")
				}
				if diff := cmp.Diff(c.pulls, w.pulls()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// many returns the request for an index of n manifests, and then one for each of these.
func many(index, manifest string, n int) []string {
	var names, requests []string
	for i := range n {
		names = append(names, fmt.Sprintf("l%d", i))
		requests = append(requests, fmt.Sprintf(manifest, i))
	}
	return append([]string{fmt.Sprintf(index, strings.Join(names, "|"))}, requests...)
}

// A pull goes on while a request is under way, and ends a minute after the last one. It is told of
// once.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t)
		k := w.do("ann@10.0.0.1 GET app:v1=a,b")
		k.End("", "")
		time.Sleep(50 * time.Second)
		k = w.do("ann@10.0.0.1 GET app/a")
		time.Sleep(10 * time.Minute)
		k2 := w.do("ann@10.0.0.1 GET app/b")
		k2.End("", "")
		want := []string{"ann@10.0.0.1 app:v1 2 of 2 active"}
		if diff := cmp.Diff(want, w.pulls()); diff != "" {
			t.Error("under way:", diff)
		}
		k.End("", "")
		time.Sleep(58 * time.Second)
		if diff := cmp.Diff([]string{"ann@10.0.0.1 app:v1 2 of 2 idle"}, w.pulls()); diff != "" {
			t.Error("within a minute:", diff)
		}
		head := w.do("eve@10.0.0.9 HEAD app:v1=a,b")
		head.End("", "")
		loose := w.do("eve@10.0.0.9 GET other/a")
		loose.End("", "")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		ended := slices.Clone(w.ended)
		w.mu.Unlock()
		if diff := cmp.Diff([]string{"ann@10.0.0.1 app:v1 2 of 2 idle"}, ended); diff != "" {
			t.Error("what was told:", diff)
		}
		if diff := cmp.Diff([]string{"eve@10.0.0.9 other: 1 of 0 idle"}, w.pulls()); diff != "" {
			t.Error("what is left:", diff)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := w.pulls(); len(got) > 0 || len(w.ended) != 1 {
			t.Error("two minutes later:", got, w.ended)
		}
	})
}

// Bytes are counted by source while they are sent; the rate is that of the last seconds.
func TestBytesAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t)
		time.Sleep(100 * time.Millisecond) // between two ticks
		k := w.do("ann@10.0.0.1 GET app:v1=a,b")
		k.Sent("cache").Add(700)
		k.End("", "")
		k = w.do("ann@10.0.0.1 GET app/a")
		for range 3 {
			k.Sent("origin").Add(1000)
			time.Sleep(time.Second)
		}
		k.Sent("a source from the future").Add(1)
		p := w.Snapshot().Pulls[0]
		want := map[string]int64{"cache": 700, "disk": 50, "origin": 3000, "other": 1}
		if diff := cmp.Diff(want, p.Sources); diff != "" || p.Bytes != 3751 || p.Rate != 3750/3 || p.Layers.Bytes != 100 {
			t.Error(diff, p.Bytes, p.Rate, p.Layers)
		}
		time.Sleep(10 * time.Second)
		if p := w.Snapshot().Pulls[0]; p.Rate != 0 || p.State != api.LiveActive {
			t.Error("a pull that stands:", p.Rate, p.State)
		}
		k.End("upstream answered 503\n", "req-1")
		p = w.Snapshot().Pulls[0]
		if p.Failures != 1 || p.Error != "upstream answered 503\n" || p.RequestID != "req-1" || p.State != api.LiveIdle {
			t.Errorf("%+v", p)
		}
	})
}

// TestPushes follows pushes from the first blob to the tag.
func TestPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t)
		o := live.Owner{Addr: netip.MustParseAddr("10.0.0.1"), User: "ann", Upstream: "ecr", Repository: "app"}
		send := func(reference string, stored bool, n int64) {
			t.Helper()
			k := w.Track()
			k.Push(o, "docker", reference)
			k.Received().Add(n)
			k.Forwarded().Add(n / 2)
			if stored {
				k.Stored()
			}
			if reference != "" {
				k.Checks(live.Running)
				if p := w.Snapshot().Pushes; p[len(p)-1].Checks != api.LiveChecksRunning || p[len(p)-1].Reference != reference {
					t.Errorf("while the checks run: %+v", p)
				}
				k.Checks("pass")
				k.Pushed(reference, digestOf("m"))
			}
			k.End("", "")
		}
		send("", true, 1000)
		send("", true, 500)
		send(digestOf("m").String(), false, 20) // a platform
		send("v1", false, 10)                   // and the index
		send("v1", false, 10)                   // once more
		send("", true, 7)                       // the next image
		var got []string
		for _, p := range w.Snapshot().Pushes {
			got = append(got, fmt.Sprintf("%s %s:%s %d blobs, %d received, %d forwarded, %s %v", p.User, p.Repository, p.Reference, p.Blobs, p.Received, p.Forwarded, p.Checks, p.Pushed))
		}
		want := []string{"ann app:v1 2 blobs, 1540 received, 770 forwarded, pass true", "ann app: 1 blobs, 7 received, 3 forwarded,  false"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if all := w.Snapshot(); len(all.Pushes) > 0 {
			t.Error(all.Pushes)
		}
	})
}

// Clients that ask for very much make the table no larger than its bounds. Those that are busy
// stay.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t)
		busy := w.do("ann@10.0.0.1 GET app:v1=a,b")
		time.Sleep(2 * time.Second)
		long := strings.Repeat("é", 5000)
		var layers []string
		for i := range 2000 {
			layers = append(layers, fmt.Sprint(i))
		}
		huge := strings.Join(layers, ",")
		for i := range 3000 {
			k := w.Track()
			o := live.Owner{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), User: long, Upstream: "up", Repository: long}
			switch {
			case i%3 == 0:
				k.Push(o, long, long)
			case i%300 == 1:
				m := manifestOf(fmt.Sprint(i, ",", huge))
				k.Manifest(o, long, long, true, m)
			default:
				k.Blob(o, long, digestOf(fmt.Sprint(i)))
			}
			k.End(long, long)
		}
		all := w.Snapshot()
		if n := len(all.Pulls) + len(all.Pushes); n > 2048 || n < 2000 || all.Displaced != uint64(3001-n) {
			t.Errorf("%d pulls and pushes, %d displaced", n, all.Displaced)
		}
		for _, p := range all.Pulls {
			if len(p.User)+len(p.Repository)+len(p.Reference)+len(p.Agent)+len(p.Error)+len(p.RequestID) > 6*256 || p.Layers.Of > 512 {
				t.Fatalf("%d layers, %d bytes of texts", p.Layers.Of, len(p.User))
			}
		}
		if !slices.Contains(w.pulls(), "ann@10.0.0.1 app:v1 0 of 2 active") {
			t.Error("a pull under way gave way to idle ones")
		}
		busy.End("", "")
	})
}

// Requests of many clients at a time, while somebody watches.
func TestConcurrently(t *testing.T) {
	w := run(t)
	ctx, cancel := context.WithCancel(t.Context())
	var watchers, clients sync.WaitGroup
	watchers.Go(func() {
		for range w.Watch(ctx) {
			w.Snapshot()
		}
	})
	for c := range 8 {
		clients.Go(func() {
			for i := range 60 {
				for _, r := range []string{"@10.0.0.%d GET app:v%d=index:a,%d|b", "@10.0.0.%d GET app@a,%[2]d", "@10.0.0.%d GET app/%d"} {
					k := w.do(fmt.Sprintf(r, c%4, i%5, i%5))
					k.End("failed", "id")
				}
			}
		})
	}
	clients.Wait()
	cancel()
	watchers.Wait()
	var failures int
	for _, p := range w.Snapshot().Pulls {
		failures += p.Failures
	}
	if failures != 8*60*3 {
		t.Error(failures, "requests counted")
	}
}

// A request that no table counts costs nothing.
func TestNoTable(t *testing.T) {
	var none *live.Table
	k := none.Track()
	k.Manifest(live.Owner{}, "", "v1", true, manifestOf("a"))
	k.Blob(live.Owner{}, "", digestOf("a"))
	k.Push(live.Owner{}, "", "")
	k.Stored()
	k.Pushed("v1", digestOf("a"))
	k.End("failed", "id")
	if k.Sent("disk") != nil || k.Received() != nil || k.Forwarded() != nil {
		t.Error("it counts bytes")
	}
}

func BenchmarkManifest(b *testing.B) {
	table := live.New(live.Options{})
	o, m := live.Owner{Addr: netip.MustParseAddr("10.0.0.1"), User: "ann", Upstream: "docker.io", Repository: "library/alpine"}, manifestOf("a,b,c")
	b.ReportAllocs()
	for b.Loop() {
		k := table.Track()
		k.Manifest(o, "agent", "v1", true, m)
		k.Sent("cache").Add(1)
		k.End("", "")
	}
}

func BenchmarkBlob(b *testing.B) {
	table := live.New(live.Options{})
	o, m := live.Owner{Addr: netip.MustParseAddr("10.0.0.1"), User: "ann", Upstream: "docker.io", Repository: "library/alpine"}, manifestOf("a,b,c,d,e,f,g")
	k := table.Track()
	k.Manifest(o, "agent", "v1", true, m)
	d := digestOf("g")
	b.ReportAllocs()
	for b.Loop() {
		k := table.Track()
		k.Blob(o, "agent", d)
		k.Sent("cache").Add(1)
		k.End("", "")
	}
}

// TestFewWatch: a watcher more than there may be gets an error, and a place again when another one
// has gone.
func TestFewWatch(t *testing.T) {
	table := live.New(live.Options{})
	var stops []func()
	watch := func() error {
		next, stop := iter.Pull2(table.Watch(t.Context()))
		stops = append(stops, stop)
		_, err, _ := next()
		return err
	}
	for range 16 {
		if err := watch(); err != nil {
			t.Fatal(err)
		}
	}
	if e, ok := errors.AsType[*api.Error](watch()); !ok || e.Code != api.CodeUnavailable {
		t.Fatalf("the 17th got %v", e)
	}
	stops[0]()
	if err := watch(); err != nil {
		t.Error(err)
	}
	for _, stop := range stops {
		stop()
	}
}
