package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/s3/s3test"
	"dray/upstream/ecrtest"
)

// withBucket returns the edits of a configuration for a stack that uses the bucket of a store.
func withBucket(store *s3test.Server, edits ...string) []string {
	return append([]string{"cache: {directory", "bucket: {url: s3://shared/team, endpoint: " + store.URL + ", path_style: true, region: eu-west-1, timeout: 10s}\ncache: {directory"}, edits...)
}

// impatient is the setting of a bucket that is not waited for. It comes before the edits of
// withBucket.
func impatient(store *s3test.Server) string {
	return "bucket: {url: s3://shared/team, endpoint: " + store.URL + ", path_style: true, timeout: 100ms}\n"
}

// inBucket is the path of a blob in the bucket.
func inBucket(d digest.Digest) string { return "/shared/team/cache/sha256/" + d.Encoded() }

// awaitInBucket waits until the bucket has blobs.
func awaitInBucket(t testing.TB, store *s3test.Server, all ...digest.Digest) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		keys := store.Keys()
		if !slices.ContainsFunc(all, func(d digest.Digest) bool { return !slices.Contains(keys, inBucket(d)) }) {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the bucket has only %q", keys)
		}
	}
}

// bucketStack is a stack whose bucket has an image that clients have pulled through another dray.
type bucketStack struct {
	*stack
	seeded
	store *s3test.Server
	layer []byte
}

// pulled starts a dray, pulls an image through it, and waits until all of it is in the bucket.
func pulled(t *testing.T, dir string, layerBytes int64, edits ...string) bucketStack {
	t.Helper()
	store := s3test.New(t)
	s := startStack(t, dir, withBucket(store, edits...)...)
	img := seed(t, s.ecr, "team/app", "v1", layerBytes)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	layer := s.want(200, "GET", "/v2/team/app/blobs/"+img.layer.String(), nil).body
	s.want(200, "GET", "/v2/team/app/blobs/"+img.manifest.Config.Digest.String(), nil)
	awaitInBucket(t, store, img.manifest.Digest, img.layer, img.manifest.Config.Digest)
	return bucketStack{s, img, store, layer}
}

// emptied starts another dray with an empty disk before the same registries and the same bucket.
func (b bucketStack) emptied(t *testing.T, dir string, edits ...string) *stack {
	t.Helper()
	<-b.ecr.Idle()
	b.ecr.ResetCounters()
	b.store.Counts()
	return startBefore(t, b.ecr, b.hub, dir, append(edits, withBucket(b.store)...)...)
}

func (b bucketStack) pull(t *testing.T, s *stack) {
	t.Helper()
	if r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, b.manifest.Raw) {
		t.Error("the manifest is wrong")
	}
	if r := s.want(200, "GET", "/v2/team/app/blobs/"+b.seeded.layer.String(), nil); !bytes.Equal(r.body, b.layer) {
		t.Error("the layer is wrong")
	}
	s.want(200, "GET", "/v2/team/app/blobs/"+b.manifest.Config.Digest.String(), nil)
}

func TestBudgetBucket(t *testing.T) {
	b := pulled(t, t.TempDir(), 300<<10)
	spent(t, b.ecr, kinds{"GetAuthorizationToken": 1, "manifest-head": 1, "manifest-get": 1, "blob-get": 2, "s3-get": 2})
	// Each of the three is looked for once, and then written by one request.
	want := map[string]int{"get": 1, "head": 2, "put": 3}
	if got := b.store.Counts(); !maps.Equal(got, want) {
		t.Errorf("the bucket got %v, want %v", got, want)
	}
	b.pull(t, b.stack)
	b.pull(t, b.stack)
	if got := b.store.Counts(); len(got) > 0 {
		t.Errorf("what is held costs the bucket %v", got)
	}
	// An emptied mirror that has lost its facts, too, gets all bytes from the bucket. The registry
	// confirms what it shows.
	s := b.emptied(t, t.TempDir())
	b.pull(t, s)
	spent(t, b.ecr, kinds{"GetAuthorizationToken": 1, "manifest-head": 1, "blob-head": 2})
	if got, want := b.store.Counts(), map[string]int{"get": 3, "head": 2}; !maps.Equal(got, want) {
		t.Errorf("the bucket got %v, want %v", got, want)
	}
	s = b.emptied(t, t.TempDir(), "prefetch: {enabled: false}", "prefetch: {enabled: true}")
	b.pull(t, s)
	s.stop()
	if got := b.ecr.Counters(); got["blob-get"].Requests > 0 || got["manifest-get"].Requests > 0 {
		t.Errorf("with prefetch, the registry got %v", b.ecr.Sequence())
	}
	b.ecr.ResetCounters()
	// Without its manifest, a blob is shown once the registry has confirmed it.
	s = b.emptied(t, t.TempDir())
	s.header(s.want(200, "GET", "/v2/team/app/blobs/"+b.seeded.layer.String(), nil), "X-Cache", "bucket")
	spent(t, b.ecr, kinds{"GetAuthorizationToken": 1, "blob-head": 1})
	// A manifest by digest, too.
	s.header(s.want(200, "GET", "/v2/team/app/manifests/"+b.manifest.Digest.String(), nil), "X-Cache", "cache")
	spent(t, b.ecr, kinds{"manifest-head": 1})
}

func TestBudgetBucketWithFacts(t *testing.T) {
	dir := t.TempDir()
	b := pulled(t, dir, 300<<10)
	b.stop()
	if err := os.RemoveAll(filepath.Join(dir, "content")); err != nil {
		t.Fatal(err)
	}
	s := b.emptied(t, dir)
	b.pull(t, s)
	spent(t, b.ecr, kinds{"GetAuthorizationToken": 1}) // asked for ahead of need, at every start
}

func TestBucketGetsWhatIsPushed(t *testing.T) {
	store := s3test.New(t)
	s := startStack(t, t.TempDir(), withBucket(store)...)
	layer := bytes.Repeat([]byte("pushed "), 1000)
	alone := s.upload("team/app", []byte("no manifest names this"))
	m := s.push("team/app", "v1", layer)
	awaitInBucket(t, store, m.Digest, digest.FromBytes(layer), digest.FromBytes(imageConfig))
	if slices.Contains(store.Keys(), inBucket(alone)) {
		t.Error("the bucket has a blob that the registry has not accepted")
	}
}

// A fallback uses the bucket, too.
func TestBucketWithFallback(t *testing.T) {
	store := s3test.New(t)
	edits := withBucket(store, behind()...)
	s := startStack(t, t.TempDir(), edits...)
	img := seed(t, s.hub, "team/app", "v1", 3000)
	s.ecr.AddFault(ecrtest.Fault{Kinds: readKinds, Count: -1, Status: 503})
	s.pullsFrom(img, "hub")
	awaitInBucket(t, store, img.manifest.Digest, img.layer)
	<-s.hub.Idle()
	s.hub.ResetCounters()
	s = startBefore(t, s.ecr, s.hub, t.TempDir(), edits...)
	s.pullsFrom(img, "hub")
	if n := s.hub.Count("blob-get") + s.hub.Count("manifest-get"); n > 0 {
		t.Errorf("the fallback sent content %d times", n)
	}
}

// The bucket says nothing about who may see its content: only the registry does.
func TestBucketVouchesForNothing(t *testing.T) {
	b := pulled(t, t.TempDir(), 300<<10)
	b.ecr.CreateRepository("other/app")
	s := b.emptied(t, t.TempDir())
	secret := b.seeded.layer.String()
	// The image of another repository names the layer. Only its config is really there.
	m := imageOf(t, b.layer)
	for range 2 {
		for _, request := range [][]string{{"GET"}, {"HEAD"}, {"GET", "Range", "bytes=0-9"}} {
			s.want(404, request[0], "/v2/other/app/blobs/"+secret, nil, request[1:]...)
		}
		s.want(404, "GET", "/v2/other/app/manifests/"+b.manifest.Digest.String(), nil)
		if r := s.do("PUT", "/v2/other/app/manifests/v1", m.Raw, "Content-Type", m.MediaType); r.StatusCode < 400 {
			t.Errorf("a manifest without its layer: %s", r.Status)
		}
		b.pull(t, s) // now the bytes are here, for the first repository
	}
	if n := b.ecr.Count("blob-get"); n > 0 {
		t.Errorf("%d blobs came from the registry", n)
	}
}

func TestBucketInParts(t *testing.T) {
	b := pulled(t, t.TempDir(), 9<<20)
	s := b.emptied(t, t.TempDir(), "push: true", "push: true\n  parallel_fill: {threshold: 2MiB, piece: 1MiB}")
	b.pull(t, s)
	if n := b.ecr.Count("blob-get"); n > 0 {
		t.Errorf("%d blobs came from the registry", n)
	}
	if got := b.store.Counts()["get"]; got < 9 {
		t.Errorf("the layer came in %d requests", got)
	}
	s = b.emptied(t, t.TempDir())
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	r := s.want(206, "GET", "/v2/team/app/blobs/"+b.seeded.layer.String(), nil, "Range", "bytes=1000000-1000999")
	if !bytes.Equal(r.body, b.layer[1000000:1001000]) {
		t.Error("the range is wrong")
	}
}

// No fault of the bucket makes a pull fail, and what the bucket cannot give comes from the
// registry.
func TestFaultsOfTheBucket(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	refuse := func(status int, code string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { s3test.Refuse(w, status, code); return true }
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"slow down": refuse(503, "SlowDown"),
		"refusing":  refuse(403, "AccessDenied"),
		"full":      refuse(507, "QuotaExceeded"),
		"empty":     refuse(404, "NoSuchKey"),
		"silent": func(w http.ResponseWriter, r *http.Request) bool {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return true
		},
		"cut": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "307200")
			_, _ = w.Write(make([]byte, 0))
			panic(http.ErrAbortHandler)
		},
		"another size": func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.WriteString(w, "short")
			return true
		},
		"no ranges": func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := pulled(t, t.TempDir(), 300<<10)
			b.store.Fault(fault)
			s := b.emptied(t, t.TempDir(), "cache: {directory", impatient(b.store)+"cache: {directory", "push: true", "push: true\n  parallel_fill: {threshold: 128KiB, piece: 64KiB}")
			b.pull(t, s)
			b.pull(t, s)
		})
	}
}

// A body that breaks off in the middle is continued at the registry, from the byte where it broke.
func TestBucketBreaksOffInTheMiddle(t *testing.T) {
	b := pulled(t, t.TempDir(), 3<<20)
	b.store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != inBucket(b.seeded.layer) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b.layer)))
		_, _ = w.Write(b.layer[:2<<20])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	s := b.emptied(t, t.TempDir())
	b.pull(t, s)
	c := b.ecr.Counters()["s3-get"]
	if c.Requests != 1 || c.BytesOut > 2<<20 {
		t.Errorf("the registry sent %d bytes in %d requests, want the last third", c.BytesOut, c.Requests)
	}
}

// Wrong bytes are dropped, fetched from the registry alone, and replaced in the bucket.
func TestWrongBytesInTheBucket(t *testing.T) {
	b := pulled(t, t.TempDir(), 300<<10)
	wrong := bytes.Clone(b.layer)
	wrong[len(wrong)-1]++
	b.store.Set(inBucket(b.seeded.layer), wrong, time.Now())
	b.store.Set(inBucket(b.manifest.Digest), []byte("{}"), time.Now())
	s := b.emptied(t, t.TempDir())
	b.pull(t, s) // the withheld last byte is the wrong one, so not even this pull fails
	if got := b.ecr.Counters(); got["blob-get"].Requests != 1 || got["manifest-get"].Requests != 1 {
		t.Errorf("the registry got %v", b.ecr.Sequence())
	}
	for _, d := range []digest.Digest{b.seeded.layer, b.manifest.Digest} {
		for began := time.Now(); digest.FromBytes(b.store.Get(inBucket(d))) != d; time.Sleep(time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatal("the wrong object is still in the bucket")
			}
		}
	}
	if n := s.metric("dray_bucket_wrong_total"); n != 2 {
		t.Errorf("%v objects are counted as wrong", n)
	}
}

func TestSetupBucket(t *testing.T) {
	store := s3test.New(t)
	s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), withBucket(store)...)
	file := s.file(t.TempDir(), withBucket(store)...)
	setup := func(code int, args ...string) string {
		t.Helper()
		var out, failures bytes.Buffer
		if got := run(t.Context(), append([]string{"setup", "bucket", "--config", file}, args...), os.Environ(), nil, &out, &failures); got != code {
			t.Errorf("%q: exit code %d, want %d: %s%s", args, got, code, &out, &failures)
		}
		return out.String()
	}
	const lifecycle, public = "the lifecycle deletes objects below team/cache/ after 30 days, and parts of uploads that were given up\n", "all public access is blocked\n"
	for _, c := range []struct {
		code int
		args []string
		out  string
		puts int
	}{
		{1, []string{"--check"}, "missing: " + lifecycle + "missing: " + public, 0},
		{0, nil, "written: " + lifecycle + "written: " + public, 2},
		{0, []string{"--check"}, "ok: " + lifecycle + "ok: " + public, 0},
		{0, nil, "ok: " + lifecycle + "ok: " + public, 0},
		{2, []string{"--write"}, "", 0},
	} {
		if out := setup(c.code, c.args...); out != c.out {
			t.Errorf("%q: %s", c.args, out)
		}
		if got := store.Counts(); got["PUT lifecycle"]+got["PUT publicAccessBlock"] != c.puts {
			t.Errorf("%q: requests %v", c.args, got)
		}
	}
	// A rule of somebody else stays, and one of an earlier dray is replaced.
	rules := store.Setting("shared", "lifecycle")
	theirs := `<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter><Expiration><Days>7</Days></Expiration></Rule>`
	store.SetSetting("shared", "lifecycle", strings.NewReplacer("<Days>30</Days>", "<Days>5</Days>", "</LifecycleConfiguration>", theirs+"</LifecycleConfiguration>").Replace(rules))
	setup(1, "--check")
	setup(0)
	if rules = store.Setting("shared", "lifecycle"); !strings.Contains(rules, "theirs") || strings.Contains(rules, "<Days>5</Days>") || strings.Count(rules, "<Rule>") != 2 {
		t.Errorf("the rules are\n%s", rules)
	}
	for status, c := range map[int]struct {
		exit int
		code string
	}{403: {1, "AccessDenied"}, 404: {1, "NoSuchBucket"}, 501: {0, "NotImplemented"}} {
		store.Fault(func(w http.ResponseWriter, _ *http.Request) bool { s3test.Refuse(w, status, c.code); return true })
		if out := setup(c.exit, "--check"); (c.exit == 0) != (out == "unsupported: "+lifecycle+"unsupported: "+public) {
			t.Errorf("%s: %s", c.code, out)
		}
	}
}
