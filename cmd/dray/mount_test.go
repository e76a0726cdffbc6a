package main

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// mountStack is a stack before an ECR whose account setting BLOB_MOUNTING is as told. team/a holds
// an image of the layer, and team/b exists.
func mountStack(t *testing.T, mounting bool, layer []byte, edits ...string) (*stack, *oci.Manifest) {
	t.Helper()
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{BlobMounting: mounting}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), edits...)
	m := pushDirectly(t, s.ecr, "team/a", "v1", layer)
	s.ecr.CreateRepository("team/b")
	return s, m
}

// both runs a test with both positions of the account setting.
func both(t *testing.T, f func(t *testing.T, mounting bool)) {
	for _, mounting := range []bool{false, true} {
		t.Run(fmt.Sprintf("account setting %t", mounting), func(t *testing.T) { f(t, mounting) })
	}
}

// monolithic pushes a blob as containerd does: with its digest, in one body.
func (s *stack) monolithic(repo string, blob []byte) {
	s.Helper()
	at := s.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), blob)
}

// A layer that ECR is known to hold elsewhere is mounted when the client's bytes have arrived, and
// uploaded where it cannot be. Blobs of the manifest that came by pulls are known as well as those
// that were pushed.
func TestMountInPlaceOfAnUpload(t *testing.T) {
	layer := layerOf(1, 300_000)
	both(t, func(t *testing.T, mounting bool) {
		s, m := mountStack(t, mounting, layer)
		s.want(200, "GET", "/v2/team/a/manifests/v1", nil)
		s.ecr.ResetCounters()
		s.monolithic("team/b", layer)
		s.monolithic("team/b", imageConfig)
		s.want(201, "PUT", "/v2/team/b/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		if mounting {
			spent(t, s.ecr, kinds{"mount": 2, "manifest-put": 1})
		} else { // refused once or, as they are under way together, twice between these repositories
			<-s.ecr.Idle()
			if n := s.ecr.Count("mount"); n < 1 || n > 2 || s.ecr.Count("upload-put") != 2 {
				t.Errorf("%d mounts, %d uploads", n, s.ecr.Count("upload-put"))
			}
			s.ecr.ResetCounters()
			other := layerOf(2, 100_000)
			m2 := pushDirectly(t, s.ecr, "team/a", "v2", other)
			s.want(200, "GET", "/v2/team/a/manifests/v2", nil)
			s.ecr.ResetCounters()
			s.monolithic("team/b", other)
			s.want(201, "PUT", "/v2/team/b/manifests/v2", m2.Raw, "Content-Type", m2.MediaType)
			if n := s.ecr.Count("mount"); n != 0 {
				t.Errorf("%d mounts where one was just refused", n)
			}
		}
		s.holds("team/b", "v1", m, layer)
	})
}

// A client that asks for a mount without naming a source, as regctl does, gets it where dray knows
// one.
func TestMountWithoutSource(t *testing.T) {
	layer := layerOf(1, 40_000)
	d := digest.FromBytes(layer)
	both(t, func(t *testing.T, mounting bool) {
		s, _ := mountStack(t, mounting, layer)
		post := "/v2/team/b/blobs/uploads/?mount=" + d.String()
		s.want(202, "POST", post, nil) // dray has seen nothing of team/a
		s.want(200, "GET", "/v2/team/a/manifests/v1", nil)
		s.ecr.ResetCounters()
		want := map[bool]int{true: 201, false: 202}[mounting]
		s.want(want, "POST", post, nil)
		budget := kinds{"mount": 1}
		if mounting { // whose size nobody here knows
			budget["blob-head"] = 1
		}
		spent(t, s.ecr, budget)
		if s.ecr.HasBlob("team/b", d) != mounting {
			t.Error("the answer was not true")
		}
		// Another source of the client's that does not serve is no reason to upload.
		s.ecr.CreateRepository("team/c")
		s.want(want, "POST", "/v2/team/c/blobs/uploads/?mount="+d.String()+"&from=team/nowhere", nil)
		if s.ecr.HasBlob("team/c", d) != mounting {
			t.Error("the answer was not true")
		}
	})
}

// Knowing a digest is not enough to get the blob: a mount needs the right to pull from the source,
// or the bytes themselves.
func TestMountGivesNobodyWhatTheyMayNotRead(t *testing.T) {
	layer := layerOf(1, 40_000)
	d := digest.FromBytes(layer)
	rules := `{users: [alice], repositories: ["*"], actions: [pull, push]}, {users: [bob], repositories: ["team/b"], actions: [pull, push]}`
	s, m := mountStack(t, true, layer, withAuth(usersOf(t, rules), "")...)
	alice, bob := []string{"Authorization", basic("alice", "wonderland")}, []string{"Authorization", basic("bob", "builder")}
	s.want(200, "GET", "/v2/team/a/manifests/v1", nil, alice...)
	s.ecr.ResetCounters()
	start := "/v2/team/b/blobs/uploads/"
	hidden := func(when string) {
		t.Helper()
		<-s.ecr.Idle()
		if s.ecr.HasBlob("team/b", d) || s.ecr.Count("mount") != 0 {
			t.Errorf("%s: mounted for somebody who may not read it", when)
		}
	}
	s.want(202, "POST", start+"?mount="+d.String(), nil, bob...)
	hidden("by its digest")
	s.want(403, "POST", start+"?mount="+d.String()+"&from=team/a", nil, bob...)
	hidden("by its name")
	at := s.want(202, "POST", start, nil, bob...).Header.Get("Location")
	s.want(400, "PUT", at+"?digest="+d.String(), bytes.Repeat([]byte("x"), len(layer)), bob...)
	hidden("by an upload of other bytes")
	if r := s.do("PUT", "/v2/team/b/manifests/v1", m.Raw, append(bob, "Content-Type", m.MediaType)...); r.StatusCode != http.StatusNotFound && r.StatusCode != http.StatusBadRequest {
		t.Errorf("a manifest that names it: %s", r.Status)
	}
	hidden("by a manifest")
	// The bytes prove themselves.
	at = s.want(202, "POST", start, nil, bob...).Header.Get("Location")
	s.want(201, "PUT", at+"?digest="+d.String(), layer, bob...)
	at = s.want(202, "POST", start, nil, bob...).Header.Get("Location")
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(imageConfig).String(), imageConfig, bob...)
	s.want(201, "PUT", "/v2/team/b/manifests/v1", m.Raw, append(bob, "Content-Type", m.MediaType)...)
	// A client that may pull the source need not send the bytes.
	s.ecr.CreateRepository("team/c")
	s.want(201, "POST", "/v2/team/c/blobs/uploads/?mount="+d.String(), nil, alice...)
}

// A layer that ECR has lost in one repository is healed from another one, or from the local copy,
// without the client.
func TestMountHealsALostLayer(t *testing.T) {
	layer := layerOf(1, 40_000)
	d := digest.FromBytes(layer)
	both(t, func(t *testing.T, mounting bool) {
		for _, elsewhere := range []bool{false, true} {
			t.Run(fmt.Sprintf("held elsewhere %t", elsewhere), func(t *testing.T) {
				s := startBefore(t, ecrtest.Start(t, ecrtest.Options{BlobMounting: mounting}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
				s.ecr.CreateRepository("team/b")
				m := s.push("team/b", "v1", layer)
				if elsewhere {
					pushDirectly(t, s.ecr, "team/a", "v1", layer)
					s.want(200, "GET", "/v2/team/a/manifests/v1", nil)
				}
				s.ecr.DropBlob("team/b", d)
				s.ecr.ResetCounters()
				s.want(200, "HEAD", "/v2/team/b/blobs/"+d.String(), nil) // known, so the client skips it
				s.want(201, "PUT", "/v2/team/b/manifests/v2", m.Raw, "Content-Type", m.MediaType)
				s.holds("team/b", "v2", m, layer)
				<-s.ecr.Idle()
				mounts, uploads := s.ecr.Count("mount"), s.ecr.Count("upload-put")
				if (mounts > 0) != elsewhere || (uploads == 0) != (mounting && elsewhere) {
					t.Errorf("%d mounts, %d uploads\n%v", mounts, uploads, s.ecr.Sequence())
				}
			})
		}
	})
}
