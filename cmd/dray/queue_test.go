package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/mirror/queue"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// acknowledging makes an upstream acknowledge pushes locally.
var acknowledging = []string{"push: true", "push: true\n  delete: true\n  acknowledge: local"}

// forwarded waits until nothing is in the queue any more.
func (s *stack) forwarded() {
	s.Helper()
	s.until(func() bool { return len(s.queue.List()) == 0 })
}

func (s *stack) until(what func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("it never came to that; the queue has %+v", s.queue.List())
		}
	}
}

// outage makes every request to ECR fail.
func (s *stack) outage() {
	s.ecr.AddFault(ecrtest.Fault{Close: true, Count: 1 << 30})
}

// An image that was acknowledged while ECR was down is served from here at once, by tag and digest,
// with its layers, and after a restart as well, is listed, and is in ECR once that is back: with
// nothing more from the client.
func TestQueueOutage(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		dir := t.TempDir()
		s := startStack(t, dir, acknowledging...)
		first, second, third := layerOf(1, 3<<20), layerOf(2, 50_000), layerOf(3, 70_000)
		old := s.push("team/app", "v1", first)
		s.forwarded()
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil) // a fact about what the tag was, and a hot answer
		s.outage()
		m := s.push("team/app", "v1", second, third)
		for range 2 {
			for _, ref := range []string{"v1", m.Digest.String()} {
				if r := s.want(200, "GET", "/v2/team/app/manifests/"+ref, nil, "Accept", oci.MediaTypeOCIManifest); !bytes.Equal(r.body, m.Raw) {
					t.Errorf("%s is another manifest", ref)
				}
			}
			for _, l := range [][]byte{second, third, imageConfig} {
				d := digest.FromBytes(l).String()
				if r := s.want(200, "GET", "/v2/team/app/blobs/"+d, nil); !bytes.Equal(r.body, l) {
					t.Error("other bytes")
				}
				s.want(200, "HEAD", "/v2/team/app/blobs/"+d, nil)
			}
			if r := s.want(200, "GET", "/v2/team/app/tags/list", nil); !strings.Contains(string(r.body), `"v1"`) {
				t.Errorf("the list is %s", r.body)
			}
			if restarts {
				s.stop()
				s = startBefore(t, s.ecr, s.hub, dir, acknowledging...)
			}
		}
		if img, ok := s.ecr.Image("team/app", "v1"); !ok || img.Digest != old.Digest {
			t.Fatal("the outage was none")
		}
		s.ecr.ClearFaults()
		s.until(func() bool { // the breaker lets nothing through for a while
			for _, e := range s.queue.List() {
				_ = s.queue.Retry(t.Context(), e.ID)
			}
			return len(s.queue.List()) == 0
		})
		s.holds("team/app", "v1", m, second, third)
		if r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, m.Raw) {
			t.Error("the tag is not what was pushed")
		}
		s.stop()
	}
}

// An index follows its children, and what a push leaves out because it is there already need not be
// held.
func TestQueueIndex(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	layer := layerOf(1, 100_000)
	child := imageOf(t, layer)
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, oci.MediaTypeOCIIndex, child.MediaType, child.Digest, len(child.Raw))
	index := func(status int) {
		s.want(status, "PUT", "/v2/team/app/manifests/all", raw, "Content-Type", oci.MediaTypeOCIIndex)
	}
	image := func(status int) {
		s.want(status, "PUT", "/v2/team/app/manifests/"+child.Digest.String(), child.Raw, "Content-Type", child.MediaType)
	}
	s.ecr.CreateRepository("team/app")
	index(400) // its child is nowhere
	image(400) // so are the child's layers
	s.upload("team/app", layer)
	s.upload("team/app", imageConfig)
	image(201)
	index(201)
	s.forwarded()
	if img, ok := s.ecr.Image("team/app", "all"); !ok || !bytes.Equal(img.Raw, raw) {
		t.Error("the index is not there")
	}
	s.ecr.ResetCounters()
	image(201)
	index(201)
	s.forwarded()
	if n := s.ecr.Count(ecrtest.KindUploadStart); n != 0 {
		t.Errorf("%d layers were sent again", n)
	}
}

// A push that ECR refuses for good shows as failed in the list, in /readyz and in the metrics. When
// the cause is gone, an operator can have it sent again.
func TestQueueRefused(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	s.ecr.CreateRepository("team/app")
	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:PutImage"})
	layer := layerOf(1, 100_000)
	m := s.push("team/app", "v1", layer)
	s.push("team/app", "v2", layer)
	s.until(func() bool {
		return !slices.ContainsFunc(s.queue.List(), func(e queue.Entry) bool { return e.State != "failed" })
	})
	q := operated[api.Queued](s, "queue")
	if len(q.Pushes) != 2 || q.Pushes[0].State != "failed" || !strings.Contains(q.Pushes[0].Error, "not authorized to perform: ecr:PutImage") || q.Pushes[0].Bytes < 100_000 {
		t.Errorf("%+v", q)
	}
	if _, out, _ := s.operator("queue"); !strings.Contains(out, "team/app:v1") || !strings.Contains(out, "failed") {
		t.Errorf("the table is\n%s", out)
	}
	if err := s.queue.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "refused 2 acknowledged pushes") {
		t.Errorf("the health is %v", err)
	}
	s.ecr.SetDenials()
	if code, out, stderr := s.operator("queue", "retry", fmt.Sprint(q.Pushes[0].ID)); code != 0 {
		t.Errorf("%s %s", out, stderr)
	}
	s.until(func() bool { return len(s.queue.List()) == 1 })
	s.holds("team/app", "v1", m, layer)
	if code, out, stderr := s.operator("queue", "drop", fmt.Sprint(q.Pushes[1].ID)); code != 0 || !strings.Contains(out, "team/app:v2") {
		t.Errorf("%s %s", out, stderr)
	}
	for _, args := range [][]string{{"queue", "drop", "77"}, {"queue", "retry", "77"}, {"queue", "retry", "x"}} {
		if code, _, stderr := s.operator(args...); code == 0 {
			t.Errorf("%q succeeded: %s", args, stderr)
		}
	}
	if _, ok := s.ecr.Image("team/app", "v2"); ok {
		t.Error("what was dropped has landed")
	}
	if _, out, _ := s.operator("queue"); !strings.Contains(out, "the queue is empty") {
		t.Errorf("the table is\n%s", out)
	}
}

// A push that finds the queue full is forwarded while its client waits. Where it would overtake
// others of its repository, or the registry does not take it, it is refused with a reason.
func TestQueueFull(t *testing.T) {
	s := startStack(t, t.TempDir(), append(acknowledging, "min_free_bytes: 0}", "min_free_bytes: 0}\nqueue: {max_pushes: 1}")...)
	for _, repo := range []string{"team/app", "other/app"} {
		s.ecr.CreateRepository(repo)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Path: "team/app", Status: 503, Count: -1})
	waiting := s.push("team/app", "v1", layerOf(1, 1000))
	landed := s.push("other/app", "v1", layerOf(2, 1000))
	if img, ok := s.ecr.Image("other/app", "v1"); !ok || img.Digest != landed.Digest {
		t.Error("beside a full queue a push was acknowledged that ECR has not got")
	}
	s.want(201, "PUT", "/v2/team/app/manifests/v1", waiting.Raw, "Content-Type", waiting.MediaType) // the same as waits
	s.refused(429, "TOOMANYREQUESTS", "PUT", "/v2/team/app/manifests/v2", waiting.Raw, "Content-Type", waiting.MediaType)
	if list := s.queue.List(); len(list) != 1 || list[0].Digest != waiting.Digest {
		t.Errorf("the queue has %+v", list)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Path: "other/app/manifests/v2", Status: 400, Code: "MANIFEST_INVALID", Count: -1})
	m := imageOf(t, layerOf(2, 1000), layerOf(2, 1000))
	s.refused(400, "MANIFEST_INVALID", "PUT", "/v2/other/app/manifests/v2", m.Raw, "Content-Type", m.MediaType)
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Path: "other/app/manifests/v3", Status: 501, Count: -1})
	s.refused(429, "TOOMANYREQUESTS", "PUT", "/v2/other/app/manifests/v3", landed.Raw, "Content-Type", landed.MediaType)
}

// A push does not pass one of its tag that has failed in a full queue: an operator could retry that
// one, and move the tag back.
func TestQueueFullOfFailures(t *testing.T) {
	s := startStack(t, t.TempDir(), append(acknowledging, "min_free_bytes: 0}", "min_free_bytes: 0}\nqueue: {max_pushes: 1}")...)
	s.ecr.CreateRepository("team/app")
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: 400, Code: "MANIFEST_INVALID", Count: -1})
	failed := s.push("team/app", "v1", layerOf(1, 1000))
	s.until(func() bool { return s.queue.List()[0].State == queue.Failed })
	s.ecr.ClearFaults()
	next := imageOf(t, layerOf(1, 1000), layerOf(1, 1000))
	s.refused(429, "TOOMANYREQUESTS", "PUT", "/v2/team/app/manifests/v1", next.Raw, "Content-Type", next.MediaType)
	if _, err := s.queue.Drop(t.Context(), s.queue.List()[0].ID); err != nil {
		t.Fatal(err)
	}
	s.want(201, "PUT", "/v2/team/app/manifests/v1", next.Raw, "Content-Type", next.MediaType)
	s.forwarded()
	if img, ok := s.ecr.Image("team/app", "v1"); !ok || img.Digest != next.Digest || next.Digest == failed.Digest {
		t.Errorf("the tag is %v", img.Digest)
	}
}

// The queue still forwards to an upstream that has begun to acknowledge after forwarding. No push
// of a tag in the queue moves the tag back from what was pushed since.
func TestQueueOfFormerSetting(t *testing.T) {
	for _, status := range []int{400, 503} { // the first one fails for good, the second one waits
		dir := t.TempDir()
		s := startStack(t, dir, acknowledging...)
		s.ecr.CreateRepository("team/app")
		s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: status, Code: "MANIFEST_INVALID", Count: -1})
		s.push("team/app", "v1", layerOf(1, 1000))
		s.until(func() bool { return s.queue.List()[0].Error != "" })
		s.stop()
		s = startBefore(t, s.ecr, s.hub, dir, "push: true", "push: true\n  delete: true")
		next := imageOf(t, layerOf(2, 1000))
		old := s.queue.List()[0].ID
		if status == 503 {
			s.refused(429, "TOOMANYREQUESTS", "PUT", "/v2/team/app/manifests/v1", next.Raw, "Content-Type", next.MediaType)
		}
		s.ecr.ClearFaults()
		if status == 503 {
			s.until(func() bool { // the breaker lets nothing through for a while
				_ = s.queue.Retry(t.Context(), old)
				return len(s.queue.List()) == 0
			})
		}
		s.push("team/app", "v1", layerOf(2, 1000))
		if code, _, stderr := s.operator("queue", "retry", fmt.Sprint(old)); code == 0 || status == 400 && !strings.Contains(stderr, "a later push moved the tag") {
			t.Errorf("%d: retry: %d %s", status, code, stderr)
		}
		s.holds("team/app", "v1", next, layerOf(2, 1000))
		s.stop()
	}
}

// Checks come before the acknowledgement, and what passed is forwarded after a restart without
// being judged again: an index with the children that had waited for it, too.
func TestQueueAfterChecks(t *testing.T) {
	dir := t.TempDir()
	edits := []string{
		"  push: true\n", "  push: true\n  acknowledge: local\n  checks: [gate]\n",
		"upstreams:\n", "checks:\n- name: gate\n  names: {mode: enforce, forbidden_tags: [latest], immutable_tags: [r*]}\nupstreams:\n",
	}
	s := startStack(t, dir, edits...)
	s.ecr.CreateRepository("team/app")
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: 503, Count: -1})
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "etc/motd", "hello")))
	if r := s.pushImage("team/app", "latest", img); r.StatusCode != 403 {
		t.Errorf("what is forbidden was acknowledged: %s", r.Status)
	}
	if n := len(s.queue.List()); n != 0 {
		t.Errorf("%d pushes wait", n)
	}
	if r := s.pushImage("team/app", "", img); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	// A tag that is on its way is taken as well as one that is there.
	if r := s.pushImage("team/app", "r1", img); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	if msg := s.message(s.pushImage("team/app", "r1", newImage(t, plainConfig+" ", img.layers...))); !strings.Contains(msg, "[names/immutable]") {
		t.Errorf("a queued tag that must not move: %s", msg)
	}
	about, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/x","digest":%[1]q,"size":%[2]d},"layers":[{"mediaType":"application/x","digest":%[1]q,"size":%[2]d}],"subject":{"mediaType":%[3]q,"digest":%[4]q,"size":%[5]d}}`,
		digest.FromString(plainConfig), len(plainConfig), img.man.MediaType, img.man.Digest, len(img.man.Raw)))
	if err != nil {
		t.Fatal(err)
	}
	if r := s.putManifest("team/app", "", about); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	if _, ok := s.queue.Find("ecr", "team/app", about.Digest.String()); !ok {
		t.Error("what describes a queued image does not wait behind it")
	}
	other := newImage(t, plainConfig+"  ", img.layers...)
	if r := s.pushImage("team/app", "", other); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	index := indexOf(t, img.man, other.man) // one child waits in the queue by now, under its tag, the other one for its index
	if r := s.putManifest("team/app", "v1", index); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	s.stop()
	s.ecr.ClearFaults()
	s = startBefore(t, s.ecr, s.hub, dir, edits...)
	s.forwarded()
	if got, ok := s.ecr.Image("team/app", "v1"); !ok || !bytes.Equal(got.Raw, index.Raw) {
		t.Error("the index is not there")
	}
	for _, child := range []*oci.Manifest{img.man, other.man} {
		if got, ok := s.ecr.Image("team/app", child.Digest.String()); !ok || !bytes.Equal(got.Raw, child.Raw) {
			t.Error("its child is not there")
		}
	}
}

// A disk that is full refuses an upload, loses none that was taken, and takes the same one when
// there is room again.
func TestUploadDiskFull(t *testing.T) {
	for level, edits := range map[string][]string{"upstream": nil, "local": acknowledging} {
		t.Run(level, func(t *testing.T) {
			s := startStack(t, t.TempDir(), append([]string{"min_free_bytes: 0}", "min_free_bytes: 0, max_bytes: 8MiB}\nlimits: {max_upload_bytes_per_client: 1GiB}\nqueue: {max_bytes: 1GiB}"}, edits...)...)
			s.ecr.CreateRepository("team/app")
			first, second := layerOf(1, 5<<20), layerOf(2, 5<<20)
			s.upload("team/app", first)
			if r := s.do("PUT", s.start("team/app")+"?digest="+digest.FromBytes(second).String(), second); r.StatusCode != 503 {
				t.Errorf("a layer without room: %s %s", r.Status, r.body)
			}
			s.upload("team/app", imageConfig)
			m := imageOf(t, first)
			s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
			if s.queue.Takes() {
				s.forwarded()
			}
			s.holds("team/app", "v1", m, first)
			next := s.push("team/app", "v2", second)
			if s.queue.Takes() {
				s.forwarded()
			}
			s.holds("team/app", "v2", next, second)
		})
	}
}

// Where nothing was ever acknowledged locally there is no queue, and no number is that of a push.
func TestQueueAbsent(t *testing.T) {
	s := startStack(t, t.TempDir())
	if s.queue.Takes() {
		t.Fatal("there is a queue")
	}
	for _, what := range []string{"retry", "drop"} {
		if code, stdout, stderr := s.operator("queue", what, "7"); code != exitFailed || stdout != "" || !strings.Contains(stderr, "push 7: no such push in the queue") {
			t.Errorf("%s: %d %s%s", what, code, stdout, stderr)
		}
	}
	if code, stdout, _ := s.operator("queue"); code != exitOK || stdout != "the queue is empty\n" {
		t.Errorf("%d %s", code, stdout)
	}
}

// A queued push is listed as clients get it, can be pinned, and is not purged. When it has been
// forwarded, the list differs only in that it is no longer queued.
func TestQueueIsListed(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	old := s.push("team/app", "v1", layerOf(1, 50_000))
	s.forwarded()
	s.outage()
	layer := layerOf(2, 70_000)
	m := s.push("team/app", "v1", layer)
	shows := func(d digest.Digest) (found *api.Image) {
		for _, i := range operated[api.Items[api.Image]](s, "ls", "team/app").Items {
			if i.Digest == d {
				found = &i
			}
		}
		return found
	}
	if i := shows(m.Digest); i == nil || !i.Queued || fmt.Sprint(i.Tags) != "[v1]" || i.HeldParts != 3 || i.Parts != 3 || i.Bytes != i.HeldBytes || i.Upstream != "ecr" {
		t.Errorf("it is listed as %+v", i)
	}
	if i := shows(old.Digest); i == nil || i.Queued || len(i.Tags) != 0 {
		t.Errorf("what the tag was before is listed as %+v", i)
	}
	for _, args := range [][]string{{"team/app:v1"}, {m.Digest.String()}, {"team/app:v1", "--force"}} {
		if code, _, stderr := s.operator(append([]string{"purge"}, args...)...); code != exitFailed || !strings.Contains(stderr, "not forwarded yet") {
			t.Errorf("purge %q: %d %s", args, code, stderr)
		}
	}
	if p := operated[api.Pin](s, "pin", "team/app:v1"); p.HeldBlobs != 2 || len(p.Missing) != 1 {
		t.Errorf("%+v", p)
	}
	operated[api.NameRequest](s, "unpin", "team/app:v1")
	s.ecr.ClearFaults()
	s.until(func() bool {
		for _, e := range s.queue.List() {
			_ = s.queue.Retry(t.Context(), e.ID)
		}
		return len(s.queue.List()) == 0
	})
	s.pull("/v2/team/app", "v1", m)
	if i := shows(m.Digest); i == nil || i.Queued || fmt.Sprint(i.Tags) != "[v1]" || i.HeldParts != 3 {
		t.Errorf("afterwards it is listed as %+v", i)
	}
}

// The reason why a push is not at its registry shows from the first failed request on, and not only
// when a whole attempt has failed. That request may be the one that asks for a blob.
func TestQueueShowsTrouble(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir, acknowledging...)
	shows := func() {
		t.Helper()
		s.until(func() bool { return s.queue.List()[0].Error != "" })
		if e := s.queue.List()[0]; e.State != queue.Forwarding || e.Attempts != 1 {
			t.Errorf("it shows after attempt %d, when the push is %s", e.Attempts, e.State)
		}
	}
	s.push("team/app", "v0", layerOf(1, 1000))
	s.forwarded()
	s.ecr.AddFault(ecrtest.Fault{Status: 503, Count: 1 << 30})
	s.push("team/app", "v1", layerOf(2, 1000))
	shows()
	s.stop()
	s.ecr.ClearFaults()
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBlobHead}, Status: 503, Count: -1})
	s = startBefore(t, s.ecr, s.hub, dir, acknowledging...)
	shows()
}
