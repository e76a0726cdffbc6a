package main

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/notify"
	"dray/mirror/queue"
	"dray/upstream/ecrtest"
)

// refuseManifests has ECR take nothing for the time being, so that what is acknowledged waits.
func (s *stack) refuseManifests() {
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: 503, Count: -1})
}

// arrives ends that, and waits until nothing waits any more.
func (s *stack) arrives() {
	s.Helper()
	s.ecr.ClearFaults()
	s.until(func() bool {
		for _, e := range s.queue.List() {
			_ = s.queue.Retry(s.Context(), e.ID)
		}
		return len(s.queue.List()) == 0
	})
}

// Deleting a queued push by tag or digest removes it at once, together with the content that ECR
// has under the tag. It does not come back, not even after a restart. Other queued pushes arrive.
func TestDeleteQueued(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		for _, by := range []string{"tag", "digest"} {
			dir := t.TempDir()
			s := startStack(t, dir, acknowledging...)
			s.ecr.CreateRepository("team/app")
			older := s.push("team/app", "v1", layerOf(1, 1000))
			s.forwarded()
			s.refuseManifests()
			m := s.push("team/app", "v1", layerOf(2, 1000))
			s.push("team/app", "v2", layerOf(3, 1000))
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
			ref := "v1"
			if by == "digest" {
				ref = m.Digest.String()
			}
			s.want(202, "DELETE", "/v2/team/app/manifests/"+ref, nil)
			for _, other := range []string{ref, m.Digest.String()} {
				s.want(404, "GET", "/v2/team/app/manifests/"+other, nil)
			}
			if by == "tag" { // ECR drops an image with its last tag
				s.want(404, "GET", "/v2/team/app/manifests/"+older.Digest.String(), nil)
			}
			s.want(404, "DELETE", "/v2/team/app/manifests/"+ref, nil)
			if restarts {
				s.stop()
				s = startBefore(t, s.ecr, s.hub, dir, acknowledging...)
			}
			s.arrives()
			if _, ok := s.ecr.Image("team/app", m.Digest.String()); ok {
				t.Errorf("what was deleted by %s is at ECR", by)
			}
			if _, ok := s.ecr.Image("team/app", "v1"); ok != (by == "digest") { // the older image was not deleted by the digest of the newer one
				t.Errorf("after a deletion by %s ECR has v1: %v", by, ok)
			}
			if _, ok := s.ecr.Image("team/app", "v2"); !ok {
				t.Error("another image was lost")
			}
			s.stop()
		}
	}
}

// The event of a deletion names the image that ECR had under the tag. If ECR had none, it names the
// image whose push was withdrawn.
func TestDeleteQueuedEvent(t *testing.T) {
	told := &listener{}
	service := httptest.NewServer(told)
	defer service.Close()
	s := startStack(t, t.TempDir(), append([]string{"upstreams:\n", "notifications: [{url: '" + service.URL + "'}]\nupstreams:\n"}, acknowledging...)...)
	s.ecr.CreateRepository("team/app")
	older := s.push("team/app", "v1", layerOf(1, 1000))
	s.forwarded()
	s.refuseManifests()
	s.push("team/app", "v1", layerOf(2, 1000))
	newer := s.push("team/app", "v2", layerOf(3, 1000))
	told.next(t, 3)
	for tag, want := range map[string]digest.Digest{"v1": older.Digest, "v2": newer.Digest} {
		s.want(202, "DELETE", "/v2/team/app/manifests/"+tag, nil)
		if e := told.next(t, 1)[0]; e.Action != notify.Delete || e.Target.Digest != want {
			t.Errorf("%s: %+v, want %s", tag, e, want)
		}
	}
}

// A deletion that ECR does not carry out loses nothing. One that it has carried out is on disk by
// then: a process that begins after a crash at that moment has not got the push any more.
func TestDeleteQueuedSurvivesCrash(t *testing.T) {
	const deletion = ecrtest.Kind("BatchDeleteImage")
	dir := t.TempDir()
	s := startStack(t, dir, acknowledging...)
	s.ecr.CreateRepository("team/app")
	s.refuseManifests()
	m := s.push("team/app", "v1", layerOf(1, 1000))
	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:BatchDeleteImage"})
	s.refused(403, "DENIED", "DELETE", "/v2/team/app/manifests/"+m.Digest.String(), nil)
	s.ecr.SetDenials()
	if left := surviving(t, dir); len(left) != 1 {
		t.Errorf("after a refused deletion a later process would have %+v", left)
	}
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)

	s.ecr.ResetCounters()
	held := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{deletion}, HoldAt: ecrtest.At(0), Count: -1})
	done := make(chan got)
	go func() {
		r, _ := s.try("DELETE", "/v2/team/app/manifests/"+m.Digest.String(), nil)
		done <- r
	}()
	s.until(func() bool { return s.ecr.Count(deletion) > 0 })
	if left := surviving(t, dir); len(left) > 0 {
		t.Errorf("after a crash %+v would come back", left)
	}
	s.want(404, "GET", "/v2/team/app/manifests/v1", nil)
	s.ecr.RemoveFault(held)
	if r := <-done; r.Response == nil || r.StatusCode != 202 {
		t.Errorf("%+v", r)
	}
	s.arrives()
	if n := len(s.ecr.Images()); n != 0 {
		t.Errorf("ECR has %d images", n)
	}
}

// surviving is what a process would find in the queue that began now.
func surviving(t *testing.T, dir string) []queue.Entry {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(dir, "queue"))); err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(t.Context(), queue.Options{Directory: copied, Hold: func(context.Context, digest.Digest) (func(), error) { return func() {}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	return q.List()
}

// A part of an index on its way stays, with the reason, and goes with or after the index.
func TestDeletePartOfQueuedIndex(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	s.ecr.CreateRepository("team/app")
	s.refuseManifests()
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "etc/motd", "hello")))
	if r := s.pushImage("team/app", "", img); r.StatusCode != 201 {
		t.Fatal(r.Status)
	}
	index := indexOf(t, img.man)
	if r := s.putManifest("team/app", "all", index); r.StatusCode != 201 {
		t.Fatal(r.Status)
	}
	child := "/v2/team/app/manifests/" + img.man.Digest.String()
	if _, text := s.refused(403, "DENIED", "DELETE", child, nil); !strings.Contains(text, "part of the index all") {
		t.Errorf("the message is %q", text)
	}
	s.refused(403, "DENIED", "DELETE", "/v2/team/app/blobs/"+digest.FromBytes(img.layers[0]).String(), nil)
	s.want(202, "DELETE", "/v2/team/app/manifests/all", nil)
	s.want(202, "DELETE", child, nil)
	s.arrives()
	if n := len(s.ecr.Images()); n != 0 {
		t.Errorf("ECR has %d images", n)
	}
}

// A manifest that passed its checks and waits for its index is deleted like one that is there, and
// the index cannot be forwarded without it.
func TestDeleteHeldBack(t *testing.T) {
	s := startStack(t, t.TempDir(), append(checked("  names: {mode: enforce, forbidden_tags: [latest]}"), "  keep_alive: 0s\n", "  keep_alive: 0s\n  delete: true\n")...)
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "etc/motd", "hello")))
	if r := s.pushImage("team/app", "", img); r.StatusCode != 201 {
		t.Fatal(r.Status)
	}
	child := "/v2/team/app/manifests/" + img.man.Digest.String()
	s.want(200, "GET", child, nil)
	// A deletion that ECR refuses changes nothing.
	refusal := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"BatchDeleteImage"}, Status: 400, Count: -1})
	if r := s.do("DELETE", child, nil); r.StatusCode < 400 {
		t.Fatalf("ECR refuses, and the answer is %s", r.Status)
	}
	s.ecr.RemoveFault(refusal)
	s.want(200, "GET", child, nil)
	// Neither does one during which the manifest is pushed again.
	slow := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"BatchDeleteImage"}, Latency: 300 * time.Millisecond, Count: -1})
	s.ecr.ResetCounters()
	deleted := make(chan got)
	go func() {
		r, _ := s.try("DELETE", child, nil)
		deleted <- r
	}()
	for s.ecr.Count("BatchDeleteImage") == 0 {
		time.Sleep(time.Millisecond)
	}
	if r := s.putManifest("team/app", "", img.man); r.StatusCode != 201 {
		t.Fatal(r.Status)
	}
	if r := <-deleted; r.StatusCode != 202 {
		t.Fatalf("the deletion: %s", r.Status)
	}
	s.ecr.RemoveFault(slow)
	s.want(200, "GET", child, nil)
	s.want(202, "DELETE", child, nil)
	s.want(404, "GET", child, nil)
	s.want(404, "DELETE", child, nil)
	if r := s.putManifest("team/app", "all", indexOf(t, img.man)); r.StatusCode < 400 {
		t.Errorf("the index of what was deleted: %s", r.Status)
	}
	if n := len(s.ecr.Images()); n != 0 {
		t.Errorf("ECR has %d images", n)
	}
}

// A push to a repository that does not exist yet is deleted like any other.
func TestDeleteQueuedOfNewRepository(t *testing.T) {
	s := startStack(t, t.TempDir(), acknowledging...)
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"CreateRepository"}, Status: 503, Count: -1})
	m := s.push("team/new", "v1", layerOf(1, 1000))
	s.want(202, "DELETE", "/v2/team/new/manifests/"+m.Digest.String(), nil)
	s.want(404, "GET", "/v2/team/new/manifests/v1", nil)
	s.arrives()
	if n := len(s.ecr.Images()); n != 0 {
		t.Errorf("ECR has %d images", n)
	}
}

// A push that is under way when somebody deletes its tag or digest, as after an answer that it is
// still being copied, arrives first and is deleted then, whatever the upstream's name.
func TestDeleteWhileLanding(t *testing.T) {
	for _, c := range []struct{ name, by string }{{"ecr", "tag"}, {"ecr", "digest"}, {"my ecr", "tag"}, {"my ecr", "digest"}} {
		by := c.by
		s, cfg := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), "push: true", deleting)
		cfg.Upstreams[0].Name, cfg.Listeners[0].Upstreams[0] = c.name, c.name // not read from a file, which would refuse a space
		s.launch(cfg, t.Output())
		s.ecr.CreateRepository("team/app")
		held := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Latency: 300 * time.Millisecond, Count: -1})
		layer := layerOf(1, 1000)
		s.upload("team/app", layer)
		s.upload("team/app", imageConfig)
		m, ref := imageOf(t, layer), "v1"
		if by == "digest" {
			ref = m.Digest.String()
		}
		<-s.ecr.Idle()
		s.ecr.ResetCounters()
		done := make(chan got)
		go func() {
			r, _ := s.try("PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
			done <- r
		}()
		for s.ecr.Count(ecrtest.KindManifestPut) == 0 {
			time.Sleep(time.Millisecond)
		}
		s.want(202, "DELETE", "/v2/team/app/manifests/"+ref, nil)
		if r := <-done; r.Response == nil || r.StatusCode != 201 {
			t.Errorf("the push: %+v", r)
		}
		s.ecr.RemoveFault(held)
		if n := len(s.ecr.Images()); n != 0 {
			t.Errorf("deleted by %s, upstream %q has %d images", by, c.name, n)
		}
		s.want(404, "GET", "/v2/team/app/manifests/v1", nil)
		s.stop()
	}
}
