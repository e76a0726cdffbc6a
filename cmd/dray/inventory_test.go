package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// noise is content that no other test has.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{'o', 'p', 's', seed}).Read(p) // never fails
	return p
}

var times = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d`)

// printed is the table that a subcommand prints, with times replaced.
func (s *stack) printed(args ...string) string {
	s.Helper()
	code, stdout, stderr := s.operator(args...)
	if code != 0 {
		s.Fatalf("%q: %d %s", args, code, stderr)
	}
	return "$ dray " + strings.Join(args, " ") + "\n" + times.ReplaceAllString(stdout, "2026-01-02 03:04") + "\n"
}

// pull gets an image as a client does, and checks every byte.
func (s *stack) pull(path, ref string, m *oci.Manifest) {
	s.Helper()
	got := s.want(200, "GET", path+"/manifests/"+ref, nil)
	if !bytes.Equal(got.body, m.Raw) {
		s.Fatalf("%s:%s is another manifest: %s", path, ref, got.body)
	}
	for _, c := range m.Children() {
		if got := s.want(200, "GET", path+"/blobs/"+c.Digest.String(), nil); digest.FromBytes(got.body) != c.Digest {
			s.Fatalf("%s: %d bytes that are not %s", path, len(got.body), c.Digest)
		}
	}
}

// idle waits until nobody reads a blob or needs one for a push. Both end a little after the client
// has its answer.
func (s *stack) idle() { s.Helper(); s.idleBut(0) }

// planned waits until all blobs can be evicted but the n that somebody needs for good. A fetched
// blob cannot be evicted before its fetch has ended, which is after the answer.
func (s *stack) planned(n int) {
	s.Helper()
	s.idleBut(n)
	s.eventually("all blobs are in the plan", func() bool {
		return len(operated[api.Evicted](s, "evict", "--dry-run", "--bytes", "1TB").Victims) == s.disk.Stats().Blobs-n
	})
}

// idleBut is idle with so many blobs that somebody needs for good.
func (s *stack) idleBut(n int) {
	s.Helper()
	for give := time.Now().Add(time.Minute); ; runtime.Gosched() {
		open := 0
		if err := s.disk.List(s.Context(), func(i disk.Info) bool { open += btoi(i.Open); return true }); err != nil {
			s.Fatal(err)
		}
		if open == n {
			return
		}
		if time.Now().After(give) {
			s.Fatalf("%d blobs are still open", open)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// twoImages pushes two images that share a layer, and pulls a third from another registry.
func twoImages(s *stack) (v1, v2 *oci.Manifest, other seeded) {
	s.Helper()
	base, a, b := noise(1, 2<<20), noise(2, 40<<10), noise(3, 1<<20)
	v1, v2 = s.push("team/app", "v1", base, a), s.push("team/app", "v2", base, b)
	other = seed(s, s.hub, "library/alpine", "3", 10<<10)
	s.pull("/v2/hub/alpine", "3", other.manifest)
	s.idle()
	return v1, v2, other
}

// TestOperatorsSee: every subcommand that shows something, as people see it.
func TestOperatorsSee(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir)
	s.push("team/app", "v1", noise(1, 2<<20), noise(2, 40<<10))
	s.push("team/app", "v2", noise(1, 2<<20), noise(3, 1<<20))
	s.push("team/job", "latest", noise(4, 100))
	s.idle()
	var shown strings.Builder
	for _, args := range [][]string{
		{"ls"}, {"ls", "*/job"}, {"ls", "none"}, {"pin", "team/job"}, {"pin"}, {"ls", "team/job"},
		{"purge", "ecr/team/app:v1", "--dry-run"}, {"purge", "--repository", "team/*", "--dry-run"}, {"purge", "team/app:v1"}, {"ls", "--all"},
		{"unpin", "localhost:5000/team/job:latest"}, {"pin"}, {"purge", "--repository", "team/a*"}, {"ls"}, {"ls", "--blobs"},
	} {
		shown.WriteString(s.printed(args...))
	}
	golden(t, "testdata/operators.golden", shown.String())
}

// TestOperatorsAreRefused: requests that cannot be done are refused with the reason and the right
// code.
func TestOperatorsAreRefused(t *testing.T) {
	s := startStack(t, t.TempDir())
	none := "sha256:" + strings.Repeat("0", 64)
	for _, tc := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"purge"}, exitUsage, "name an image or a digest, or set --repository"},
		{[]string{"purge", "a", "--repository", "b"}, exitUsage, "name an image or a digest, or set --repository"},
		{[]string{"purge", "team/app"}, exitFailed, "ecr/team/app:latest: not found in the cache"},
		{[]string{"purge", "--repository", "team/*"}, exitFailed, "team/*: not found in the cache"},
		{[]string{"purge", none}, exitFailed, none + ": not found in the cache"},
		{[]string{"purge", "sha256:12"}, exitFailed, "invalid digest"},
		{[]string{"purge", "ghcr.io/a/b"}, exitFailed, `"ghcr.io" is not a name of dray or of one of its upstreams`},
		{[]string{"pin", "hub/alpine"}, exitFailed, "hub/library/alpine:latest: not found in the cache"},
		{[]string{"pin", none}, exitFailed, "not found in the cache"},
		{[]string{"unpin", "hub/alpine"}, exitFailed, "pin of hub/library/alpine:latest: not found in the cache"},
		{[]string{"unpin"}, exitUsage, ""},
		{[]string{"evict"}, exitUsage, "set --dry-run, or --bytes"},
		{[]string{"evict", "--bytes", "much"}, exitUsage, "not a size"},
		{[]string{"ls", "--blobs", "x"}, exitUsage, "takes no pattern"},
		{[]string{"ls", "a", "b"}, exitUsage, ""},
	} {
		code, stdout, stderr := s.operator(tc.args...)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%q: %d, want %d\nstdout %s\nstderr %s", tc.args, code, tc.code, stdout, stderr)
		}
	}
}

// TestPurge: purged images are fetched again, images that share blobs with them are not, and the
// bytes are gone.
func TestPurge(t *testing.T) {
	s := startStack(t, t.TempDir())
	v1, v2, other := twoImages(s)
	s.ecr.ResetCounters()
	s.hub.ResetCounters()
	done := operated[api.Purged](s, "purge", "team/app:v1")
	fates := map[api.Fate]int{}
	for _, b := range done.Blobs {
		fates[b.Fate]++
	}
	if fmt.Sprint(fates) != "map[removed:2 shared:2]" || done.RemovedBytes != int64(len(v1.Raw))+40<<10 || fmt.Sprint(done.Tags) != "[ecr/team/app:v1]" {
		t.Errorf("%+v", done)
	}
	for _, d := range []digest.Digest{v1.Digest, v1.Layers[1].Digest} {
		if _, held := s.disk.Lookup(d); held {
			t.Errorf("%s is still held", d)
		}
	}
	s.pull("/v2/team/app", "v2", v2)
	s.pull("/v2/hub/alpine", "3", other.manifest)
	spent(t, s.ecr, map[ecrtest.Kind]int64{})
	spent(t, s.hub, map[ecrtest.Kind]int64{})
	s.pull("/v2/team/app", "v1", v1)
	<-s.ecr.Idle()
	if n := s.ecr.Counters()[ecrtest.KindManifestGet].Requests; n != 1 {
		t.Errorf("%d requests for the manifest that was purged\n%s", n, strings.Join(s.ecr.Sequence(), "\n"))
	}
	s.idle()
	if got := operated[api.Purged](s, "purge", "--repository", "*"); len(got.Tags) != 3 {
		t.Errorf("%+v", got.Tags)
	}
	if st := s.disk.Stats(); st.Blobs != 0 {
		t.Errorf("%d blobs are left when everything was purged", st.Blobs)
	}
	s.pull("/v2/team/app", "v2", v2)
}

// TestPurgeOfTagThatIsNotAlone: a tag goes alone where another one points to the same image; the
// digest goes with all its tags.
func TestPurgeOfTagThatIsNotAlone(t *testing.T) {
	s := startStack(t, t.TempDir())
	m := s.push("team/app", "v1", noise(1, 5000))
	s.push("team/app", "latest", noise(1, 5000))
	if done := operated[api.Purged](s, "purge", "team/app"); len(done.Blobs) != 0 || fmt.Sprint(done.Tags) != "[ecr/team/app:latest]" {
		t.Errorf("%+v", done)
	}
	s.push("team/app", "latest", noise(1, 5000))
	s.idle()
	done := operated[api.Purged](s, "purge", m.Digest.String())
	if len(done.Blobs) != 3 || fmt.Sprint(done.Tags) != "[ecr/team/app:latest ecr/team/app:v1]" || s.disk.Stats().Blobs != 0 {
		t.Errorf("%+v", done)
	}
}

// TestPurgeSparesReaders: a blob that a client reads stays. With force it is removed, and the
// client still reads to its end.
func TestPurgeSparesReaders(t *testing.T) {
	s := startStack(t, t.TempDir())
	layer := noise(1, 24<<20) // more than the sockets hold
	m := s.push("team/app", "v1", layer)
	resp, err := http.Get(s.url + "/v2/team/app/blobs/" + m.Layers[0].Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	fate := func(args ...string) api.Fate {
		for _, b := range operated[api.Purged](s, append([]string{"purge"}, args...)...).Blobs {
			if b.Digest == m.Layers[0].Digest {
				return b.Fate
			}
		}
		return ""
	}
	at := m.Layers[0].Digest.String()
	if got := fate(at); got != api.FateShared {
		t.Errorf("what its image needs: %s", got)
	}
	if got := fate("team/app:v1", "--dry-run"); got != api.FateInUse {
		t.Errorf("would be %s", got)
	}
	if got := fate("team/app:v1"); got != api.FateInUse {
		t.Errorf("%s", got)
	}
	if got := fate(at, "--force"); got != api.FateRemoved {
		t.Errorf("by force %s", got)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(append(head, rest...), layer) {
		t.Errorf("the reader got %d bytes, %v", len(head)+len(rest), err)
	}
}

// TestFactsLost: without facts the images are found on disk, and belong to nobody.
func TestFactsLost(t *testing.T) {
	dir := t.TempDir()
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	s := startBefore(t, ecr, hub, dir)
	v1, _, other := twoImages(s)
	s.stop()
	if err := os.Remove(filepath.Join(dir, "facts.db")); err != nil {
		t.Fatal(err)
	}
	s = startBefore(t, ecr, hub, dir)
	all := operated[api.Items[api.Image]](s, "ls").Items
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	for _, i := range all {
		if i.Upstream != "" || i.Repository != "" || len(i.Tags) != 0 || i.HeldParts != i.Parts || i.HeldBytes != i.Bytes || i.LastUse.IsZero() {
			t.Errorf("%+v", i)
		}
	}
	// An image without a repository protects its blobs, and can be named by digest.
	done := operated[api.Purged](s, "purge", v1.Digest.String())
	fates := map[api.Fate]int{}
	for _, b := range done.Blobs {
		fates[b.Fate]++
	}
	if fmt.Sprint(fates) != "map[removed:2 shared:2]" {
		t.Errorf("%+v", done)
	}
	if p := operated[api.Pin](s, "pin", other.manifest.Digest.String()); p.HeldBlobs != 1+len(other.manifest.Children()) || len(p.Missing) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestPinOutlivesRestart: a pinned image is not evicted when others are, also after a restart. Its
// missing blobs are named, and pinned once they arrive.
func TestPinOutlivesRestart(t *testing.T) {
	dir := t.TempDir()
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	quota := []string{"min_free_bytes: 0", "min_free_bytes: 0, max_bytes: 16MiB"}
	s := startBefore(t, ecr, hub, dir, quota...)
	m := pushDirectly(t, ecr, "team/app", "v1", noise(1, 2<<20))
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	p := operated[api.Pin](s, "pin", "team/app:v1")
	if p.Name != "ecr/team/app:v1" || p.HeldBlobs != 1 || len(p.Missing) != 2 || !slices.Contains(p.Missing, m.Layers[0].Digest) {
		t.Errorf("%+v", p)
	}
	s.pull("/v2/team/app", "v1", m)
	s.stop()

	s = startBefore(t, ecr, hub, dir, quota...)
	for i := range 12 { // more than the cache holds
		d := pushDirectly(t, ecr, "team/other", fmt.Sprint(i), noise(byte(10+i), 2<<20))
		s.pull("/v2/team/other", fmt.Sprint(i), d)
	}
	pins := operated[api.Items[api.Pin]](s, "pin").Items
	if len(pins) != 1 || pins[0].HeldBlobs != 3 || len(pins[0].Missing) != 0 || pins[0].HeldBytes < 2<<20 {
		t.Errorf("%+v", pins)
	}
	ecr.ResetCounters()
	s.pull("/v2/team/app", "v1", m)
	spent(t, ecr, map[ecrtest.Kind]int64{})
	for _, v := range operated[api.Evicted](s, "evict", "--dry-run", "--bytes", "1GiB").Victims {
		if v.Digest == m.Layers[0].Digest || v.Digest == m.Digest {
			t.Errorf("the plan takes what is pinned: %+v", v)
		}
	}
	for _, args := range [][]string{{"team/app:v1"}, {"team/app:v1", "--dry-run"}, {m.Digest.String()}, {m.Layers[0].Digest.String()}, {"--repository", "team/app"}} {
		if code, _, stderr := s.operator(append([]string{"purge"}, args...)...); code != exitFailed || !strings.Contains(stderr, ": pinned by the pin ecr/team/app:v1; run dray unpin") {
			t.Errorf("%q, of what is pinned: %d %s", args, code, stderr)
		}
	}
	done := operated[api.Purged](s, "purge", "--repository", "team/*")
	if fmt.Sprint(done.Kept) != "[ecr/team/app@"+m.Digest.String()+"]" || slices.ContainsFunc(done.Tags, func(t string) bool { return strings.Contains(t, "team/app") }) {
		t.Errorf("%+v", done)
	}
	for _, i := range operated[api.Items[api.Image]](s, "ls").Items {
		if i.Upstream != "ecr" || i.Repository != "team/app" || fmt.Sprint(i.Tags) != "[v1]" || i.HeldParts != 3 || !i.Pinned {
			t.Errorf("left is %+v", i)
		}
	}
	operated[api.NameRequest](s, "unpin", "team/app:v1")
	if pins := operated[api.Items[api.Pin]](s, "pin").Items; len(pins) != 0 {
		t.Errorf("%+v", pins)
	}
}

// TestHostedImages: hosted images are listed under their names, and no purge by operators removes
// them.
func TestHostedImages(t *testing.T) {
	s := startStack(t, t.TempDir(), "upstreams:\n", "upstreams:\n- {name: builds, kind: local, prefixes: [builds]}\n", "upstreams: [ecr, hub]", "upstreams: [ecr, hub, builds]")
	base := noise(1, 100<<10)
	hosted := s.push("builds/team/cache", "main", base, noise(2, 1000))
	s.push("team/app", "v1", base)
	s.idleBut(2 + len(hosted.Layers)) // which hosting needs
	all := operated[api.Items[api.Image]](s, "ls").Items
	if len(all) != 2 || all[0].Upstream != "builds" || all[0].Repository != "team/cache" || fmt.Sprint(all[0].Tags) != "[main]" || all[0].HeldParts != 4 {
		t.Errorf("%+v", all)
	}
	for _, args := range [][]string{{"builds/team/cache:main"}, {"builds/team/cache@" + hosted.Digest.String()}, {"--repository", "builds/*"}, {hosted.Digest.String()}} {
		if code, _, stderr := s.operator(append([]string{"purge", "--force"}, args...)...); code != exitFailed || !strings.Contains(stderr, "stored only in this dray") {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
	done := operated[api.Purged](s, "purge", "--force", "--repository", "*")
	if fmt.Sprint(done.Tags) != "[ecr/team/app:v1]" {
		t.Errorf("%+v", done)
	}
	s.pull("/v2/builds/team/cache", "main", hosted)
}

// TestEvictDoesWhatItSaid: the dry run names what then goes, in order, and why.
func TestEvictDoesWhatItSaid(t *testing.T) {
	s := startStack(t, t.TempDir())
	_, v2, _ := twoImages(s)
	s.pull("/v2/team/app", "v2", v2)
	s.planned(0)
	want := operated[api.Evicted](s, "evict", "--dry-run", "--bytes", "2MiB").Victims
	got := operated[api.Evicted](s, "evict", "--bytes", "2MiB").Victims
	if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("planned %+v\ndone %+v", want, got)
	}
	for _, v := range got {
		if _, held := s.disk.Lookup(v.Digest); held || v.Reason == "" {
			t.Errorf("%+v, held: %v", v, held)
		}
	}
	if text := s.printed("evict", "--dry-run"); !strings.Contains(text, "not requested since it was stored") && !strings.Contains(text, "its rounds of eviction are used up") {
		t.Error(text)
	}
}

// TestPlanOfWhatIsUsed: a plan that goes around the queues many times reaches blobs in use, and
// reports the right facts about them.
func TestPlanOfWhatIsUsed(t *testing.T) {
	s := startStack(t, t.TempDir())
	m := s.push("team/app", "v1", noise(1, 2<<20))
	layer := m.Layers[0].Digest
	for range 5 {
		s.want(200, "GET", "/v2/team/app/blobs/"+layer.String(), nil)
	}
	s.idle()
	if i, _ := s.disk.Lookup(layer); i.Hits != 3 {
		t.Fatalf("%d hits", i.Hits)
	}
	for line := range strings.Lines(s.printed("evict", "--dry-run")) {
		if strings.HasPrefix(line, oci.Short(layer)) && !strings.Contains(line, "requested before, but its rounds of eviction are used up") {
			t.Error(line)
		}
	}
	if i, _ := s.disk.Lookup(layer); i.Hits != 3 {
		t.Errorf("looking has cost %d hits", 3-i.Hits)
	}
}

// TestPurgeAmongOthers: pulls and pushes that race with purges of everything get every byte right
// and never fail.
func TestPurgeAmongOthers(t *testing.T) {
	s := startStack(t, t.TempDir())
	base := noise(1, 300<<10)
	images := make([]*oci.Manifest, 3)
	for i := range images {
		images[i] = s.push("team/app", fmt.Sprint(i), base, noise(byte(10+i), 50<<10))
	}
	end := time.Now().Add(1500 * time.Millisecond)
	var wg sync.WaitGroup
	work := func(do func(i int)) {
		wg.Go(func() {
			for i := 0; time.Now().Before(end) && !t.Failed(); i++ {
				do(i)
			}
		})
	}
	for range 3 {
		work(func(i int) {
			m := images[i%len(images)]
			if got, err := s.try("GET", "/v2/team/app/manifests/"+fmt.Sprint(i%len(images)), nil); err != nil || !bytes.Equal(got.body, m.Raw) {
				t.Errorf("manifest: %v %s", err, got.body)
				return
			}
			for _, c := range m.Children() {
				if got, err := s.try("GET", "/v2/team/app/blobs/"+c.Digest.String(), nil); err != nil || digest.FromBytes(got.body) != c.Digest {
					t.Errorf("blob: %v, %d bytes", err, len(got.body))
				}
			}
		})
	}
	work(func(i int) {
		m := imageOf(t, base, noise(byte(100+i), 20<<10))
		for _, blob := range [][]byte{base, noise(byte(100+i), 20<<10), imageConfig} {
			path := "/v2/team/new/blobs/uploads/?digest=" + digest.FromBytes(blob).String()
			if got, err := s.try("POST", path, blob, "Content-Type", "application/octet-stream"); err != nil || got.StatusCode != 201 && got.StatusCode != 202 {
				t.Errorf("upload: %v %s", err, got.body)
				return
			} else if got.StatusCode == 202 { // one that is begun like others
				if got, err := s.try("PUT", got.Header.Get("Location")+"?digest="+digest.FromBytes(blob).String(), blob); err != nil || got.StatusCode != 201 {
					t.Errorf("upload: %v %s", err, got.body)
					return
				}
			}
		}
		if got, err := s.try("PUT", "/v2/team/new/manifests/"+fmt.Sprint(i), m.Raw, "Content-Type", m.MediaType); err != nil || got.StatusCode != 201 {
			t.Errorf("push: %v %s", err, got.body)
		}
	})
	s.admin()
	purges := 0
	work(func(i int) {
		args := []string{"purge", "--repository", "*"}
		if i%2 == 0 {
			args = append(args, "--force")
		}
		if code, _, stderr := s.operator(args...); code != 0 && !strings.Contains(stderr, "not found in the cache") {
			t.Errorf("purge: %s", stderr)
		}
		purges++
	})
	wg.Wait()
	if purges < 3 {
		t.Errorf("%d purges", purges)
	}
	for i, m := range images {
		s.pull("/v2/team/app", fmt.Sprint(i), m)
	}
}

// TestNothingMatches: an empty table is told apart from a pattern that fits nothing.
func TestNothingMatches(t *testing.T) {
	s := startStack(t, t.TempDir())
	for _, args := range [][]string{{"ls", "nosuch"}, {"ls", "nosuch", "--json"}} {
		if code, _, stderr := s.operator(args...); code != exitOK || stderr != "dray: no image in a repository that matches \"nosuch\"\n" {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
	if code, _, stderr := s.operator("ls"); code != exitOK || stderr != "" {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, stderr := s.operator("purge", "ecr/nosuch:1"); code != exitFailed || stderr != "dray: ecr/nosuch:1: not found in the cache\n" {
		t.Errorf("%d %s", code, stderr)
	}
}
