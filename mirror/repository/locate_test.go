package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/flight"
	"dray/mirror/queue"
	"dray/upstream"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is an upstream that has some content, and counts the questions about it.
type source struct {
	upstream.Source
	upstream.Sink
	upstream.Lister
	upstream.Deleter
	has   map[digest.Digest]int64
	asked int
	blob  []byte // what it sends
}

func (s *source) Blob(_ context.Context, b upstream.BlobRequest) (upstream.BlobStream, error) {
	return upstream.BlobStream{Body: io.NopCloser(bytes.NewReader(s.blob[b.From:])), Size: int64(len(s.blob)), Ranges: true}, nil
}

func (s *source) StatBlob(_ context.Context, _ upstream.Repo, d digest.Digest) (int64, error) {
	s.asked++
	if size, ok := s.has[d]; ok {
		return size, nil
	}
	return 0, oci.ErrBlobUnknown
}

func (s *source) StatManifest(_ context.Context, _ upstream.Repo, ref oci.Reference, _ []string) (oci.Descriptor, error) {
	s.asked++
	if size, ok := s.has[ref.Digest]; ok {
		return oci.Descriptor{Digest: ref.Digest, Size: size}, nil
	}
	return oci.Descriptor{}, oci.ErrManifestUnknown
}

// fixture is a repository with all the places where content can be.
type fixture struct {
	*testing.T
	Repo
	source, caches *source
	raw            []byte
	digest         digest.Digest
	manifest       *oci.Manifest
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir, err := disk.Open(disk.Options{Path: filepath.Join(t.TempDir(), "content")})
	if err != nil {
		t.Fatal(err)
	}
	c := cache.New(cache.Options{Disk: dir})
	q, err := queue.Open(t.Context(), queue.Options{Directory: filepath.Join(t.TempDir(), "queue"), Hold: c.Retain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := errors.Join(q.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	facts := metatest.NewMemory()
	f := &fixture{T: t, source: &source{has: map[digest.Digest]int64{}}, caches: &source{has: map[digest.Digest]int64{}}}
	to := &Upstream{Name: "caches", Source: f.caches, Sink: f.caches, Lister: f.caches, Deleter: f.caches}
	up := &Upstream{
		Name: "up", Source: f.source, Sink: f.source, Lister: f.source, Tags: TagPolicy{Fresh: time.Minute, NotFound: time.Hour}, BuildCaches: &BuildCaches{To: to},
	}
	tasks := flight.NewTasks()
	t.Cleanup(tasks.Stop)
	s, err := NewStore(Options{
		Upstreams: []*Upstream{up, to}, Cache: c, Queue: q, Tasks: tasks, Logger: slog.New(slog.DiscardHandler),
		Tags: meta.NewTags(facts, meta.Options{}), Visibility: meta.NewVisibility(facts, meta.Options{}), Presence: meta.NewPresence(facts, meta.PresenceOptions{}),
		Staged: NewStaging(time.Hour, func(string, int64) {}),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Repo = s.Repo(up, "team/app")
	f.raw = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[]}`, oci.MediaTypeOCIManifest)
	if f.manifest, err = oci.ParseManifest(oci.MediaTypeOCIManifest, f.raw); err != nil {
		t.Fatal(err)
	}
	f.digest = f.manifest.Digest
	return f
}

func (f *fixture) size() int64 { return int64(len(f.raw)) }

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// put puts the content into the cache, for nobody.
func (f *fixture) put() {
	f.Helper()
	f.must(f.store.o.Cache.Put(f.Context(), cache.Blob{Digest: f.digest, Size: f.size()}, f.raw))
}

// link lets the repository see the content.
func (f *fixture) link() {
	f.Helper()
	link := meta.Link{Digest: f.digest, LinkFact: meta.LinkFact{MediaType: oci.MediaTypeOCIManifest, Size: f.size(), Kind: meta.KindManifest}}
	f.must(f.store.o.Visibility.Add(f.Context(), "up", f.Name, link))
	f.recordSeen(f.Context(), link)
}

// absent records that the upstream has just answered "not found".
func (f *fixture) absent() {
	f.NoBlob(f.digest).Asking(f.Context()).Remember(f.Context(), time.Now(), oci.ErrBlobUnknown)
	f.NoManifest(f.digest, nil).Asking(f.Context()).Remember(f.Context(), time.Now(), oci.ErrManifestUnknown)
}

// confirm records that the upstream had the content at a time.
func (f *fixture) confirm(at time.Time) {
	f.RecordConfirmed(f.Context(), &Manifest{Raw: f.raw, Digest: f.digest}, at)
}

type retained struct{}

func (retained) Close() error   { return nil }
func (retained) Suspend() error { return nil }

// arrangements put the content of a fixture into one place alone.
var arrangements = []struct {
	name string
	put  func(*fixture)
	// blob and manifest have the place where each need finds it. A need that is missing finds it
	// Nowhere.
	blob, manifest map[Need]Place
}{
	{
		name: "nowhere",
		put:  func(*fixture) {},
	},
	{
		name: "visible, and not here",
		put:  (*fixture).link,
		blob: map[Need]Place{Serve: Visible, ServePusher: Visible, Judge: Visible, Wait: Visible},
	},
	{
		name: "held",
		put:  func(f *fixture) { f.put(); f.link() },
		blob: map[Need]Place{
			Serve: Visible, ServePusher: Visible, ServeHere: Held, Judge: Visible, Wait: Visible, Publish: Held, Acknowledge: Stored,
		},
		manifest: map[Need]Place{Serve: Held, ServePusher: Held, ServeHere: Held, Judge: Held, Forwarded: Held},
	},
	{
		name: "held, and confirmed a moment ago",
		put:  func(f *fixture) { f.put(); f.link(); f.confirm(time.Now()) },
		blob: map[Need]Place{
			Serve: Visible, ServePusher: Visible, ServeHere: Held, LeaveOut: Remembered, LeaveToQueue: RememberedHeld, Judge: Visible, Wait: Remembered,
			Publish: Remembered, Acknowledge: Stored,
		},
		manifest: map[Need]Place{Serve: Held, ServePusher: Held, ServeHere: Held, LeaveOut: Recent, LeaveToQueue: Recent, Judge: Held, Forwarded: Held},
	},
	{
		name: "held, and confirmed some time ago",
		put:  func(f *fixture) { f.put(); f.link(); f.confirm(time.Now().Add(-2 * time.Minute)) },
		blob: map[Need]Place{
			Serve: Visible, ServePusher: Visible, ServeHere: Held, LeaveOut: Remembered, LeaveToQueue: RememberedHeld, Judge: Visible, Wait: Remembered,
			Publish: Remembered, Acknowledge: Stored,
		},
		manifest: map[Need]Place{Serve: Held, ServePusher: Held, ServeHere: Held, Judge: Held, Forwarded: Held},
	},
	{
		name: "here through another repository, and not in this one",
		put:  (*fixture).put,
	},
	{
		name: "here through another repository, and in this one",
		put:  func(f *fixture) { f.put(); f.source.has[f.digest] = f.size() },
		blob: map[Need]Place{
			Serve: Shared, ServePusher: Shared, Publish: Confirmed, Acknowledge: Confirmed, Judge: Confirmed, CopyToBuildCache: Confirmed,
		},
		manifest: map[Need]Place{Acknowledge: Confirmed, AcknowledgeHeld: Answered, Forwarded: Confirmed},
	},
	{
		name: "staged for a push",
		put:  func(f *fixture) { f.store.o.Staged.Set(f.Key(f.digest), &Staged{Size: f.size(), Blob: retained{}}) },
		blob: map[Need]Place{
			ServePusher: InStaging, LeaveOut: InStaging, LeaveToQueue: InStaging, Wait: InStaging, Publish: InStaging, Acknowledge: InStaging, Judge: InStaging, CopyToBuildCache: InStaging,
		},
	},
	{
		name: "queued",
		put: func(f *fixture) {
			f.put()
			f.must(f.store.o.Queue.Add(f.Context(), queue.Push{
				Upstream: "up", Repository: f.Name, Reference: f.digest.String(), MediaType: f.manifest.MediaType, Digest: f.digest, Manifest: f.raw,
				Blobs: []queue.Blob{{Digest: f.digest, Size: f.size()}},
			}))
		},
		blob: map[Need]Place{
			Serve: InQueue, ServePusher: InQueue, ServeHere: InQueue, LeaveOut: InQueue, LeaveToQueue: InQueue, Wait: InQueue, Publish: InQueue, Acknowledge: InQueue, Judge: InQueue,
		},
		manifest: map[Need]Place{Serve: InQueue, ServePusher: InQueue, ServeHere: InQueue, LeaveOut: InQueue, LeaveToQueue: InQueue, Acknowledge: InQueue, AcknowledgeHeld: InQueue, Judge: InQueue, Forwarded: InQueue},
	},
	{
		name: "in a build cache",
		put:  func(f *fixture) { f.put(); f.caches.has[f.digest] = f.size() },
		blob: map[Need]Place{Publish: InBuildCache, Acknowledge: Stored, CopyToBuildCache: InBuildCache},
	},
	{
		name: "waiting for its index",
		put: func(f *fixture) {
			f.store.waiting.Add(f.Key(f.digest), f.manifest, "owner", time.Now().Add(time.Hour), nil)
		},
		manifest: map[Need]Place{ServePusher: InWaiting, LeaveOut: InWaiting, LeaveToQueue: InWaiting, Publish: InWaiting, Judge: InWaiting, Forwarded: InWaiting},
	},
	{
		name: "confirmed some time ago",
		put:  func(f *fixture) { f.RecordAtTarget(f.Context(), f.digest, f.size()) },
		blob: map[Need]Place{LeaveOut: Remembered, Wait: Remembered, Publish: Remembered, Judge: Remembered},
	},
	{
		name:     "at the upstream",
		put:      func(f *fixture) { f.source.has[f.digest] = f.size() },
		blob:     map[Need]Place{Publish: Confirmed, Acknowledge: Confirmed, Judge: Confirmed, CopyToBuildCache: Confirmed},
		manifest: map[Need]Place{Acknowledge: Confirmed, AcknowledgeHeld: Answered, Forwarded: Confirmed},
	},
	{
		name:     "absent, as the upstream said a moment ago",
		put:      (*fixture).absent,
		blob:     map[Need]Place{Serve: Absent, ServePusher: Absent},
		manifest: map[Need]Place{Serve: Absent, ServePusher: Absent, ServeHere: Absent, LeaveOut: Absent, LeaveToQueue: Absent, Judge: Absent},
	},
	{
		name:     "absent, and held for another repository",
		put:      func(f *fixture) { f.absent(); f.put() },
		blob:     map[Need]Place{Serve: Absent, ServePusher: Absent},
		manifest: map[Need]Place{Serve: Absent, ServePusher: Absent, ServeHere: Absent, LeaveOut: Absent, LeaveToQueue: Absent, Judge: Absent},
	},
}

// Each place is found by the needs that may use it, and by no other.
func TestLocate(t *testing.T) {
	for _, a := range arrangements {
		for need := range needs {
			t.Run(fmt.Sprintf("%s/%d", a.name, need), func(t *testing.T) {
				f := newFixture(t)
				a.put(f)
				at, err := f.LocateBlob(t.Context(), f.digest, need)
				f.wants("blob", a.blob[need], at, err, orders[need].blobs)
				f = newFixture(t)
				a.put(f)
				at, err = f.LocateManifest(t.Context(), f.digest, nil, need)
				f.wants("manifest", a.manifest[need], at, err, orders[need].manifests)
			})
		}
	}
}

// wants holds a location to the place where the content is, and the questions to the places that
// ask.
func (f *fixture) wants(what string, want Place, at Location, err error, order []Place) {
	f.Helper()
	shared := want == Nowhere && oci.NotFound(err) && f.source.asked > 0 // the bytes of another repository were asked for, and refused
	if at.Place != want && !shared {
		f.Errorf("%s: at %v, want %v", what, at.Place, want)
	}
	if (err != nil) != (want == Absent) && !shared {
		f.Errorf("%s: %v", what, err)
	}
	asks := 0
	for _, p := range order {
		if p == Confirmed || p == Shared || p == Answered {
			asks++
		}
	}
	if f.source.asked > asks {
		f.Errorf("%s: %d questions, at most %d", what, f.source.asked, asks)
	}
	switch want {
	case Nowhere:
	case InWaiting:
		if at.Manifest == nil || at.Manifest.Digest != f.digest {
			f.Errorf("%s: found no manifest", what)
		}
	case Confirmed, Answered, Shared, Remembered, RememberedHeld, Recent, Absent:
		if at.When.IsZero() {
			f.Errorf("%s: confirmed, or absent, at no time", what)
		}
	case InStaging:
		if at.Staged == nil {
			f.Errorf("%s: found nothing staged", what)
		}
	}
}

// Every need is in its place in the table, and every place has a need.
func TestOrders(t *testing.T) {
	used := map[Place]bool{Nowhere: true}
	for i, o := range orders {
		if o.need != Need(i) || o.why == "" || len(o.blobs)+len(o.manifests) == 0 {
			t.Errorf("row %d is of need %d, with %d places, because %q", i, o.need, len(o.blobs)+len(o.manifests), o.why)
		}
		for _, p := range append(o.blobs, o.manifests...) {
			used[p] = true
		}
	}
	for p := Nowhere; p <= Absent; p++ {
		if !used[p] {
			t.Errorf("no need asks place %d", p)
		}
	}
}

// A store of facts that fails has nothing, and is no error.
func TestLocateWithoutFacts(t *testing.T) {
	f := newFixture(t)
	f.put()
	f.link()
	broken := metatest.NewFaulty(metatest.NewMemory())
	broken.Fail(errors.New("down"), 0)
	f.store.o.Tags, f.store.o.Visibility, f.store.o.Presence = meta.NewTags(broken, meta.Options{}), meta.NewVisibility(broken, meta.Options{}), meta.NewPresence(broken, meta.PresenceOptions{})
	f.source.has[f.digest] = f.size()
	for need, want := range map[Need]Place{Serve: Shared, LeaveOut: Nowhere, Publish: Confirmed, Acknowledge: Confirmed} {
		if at, err := f.LocateBlob(t.Context(), f.digest, need); at.Place != want || err != nil {
			t.Errorf("need %d: at %v, %v, want %v", need, at.Place, err, want)
		}
	}
}
