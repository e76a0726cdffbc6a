package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

const deleting = "push: true\n  delete: true"

// A deletion through dray deletes at ECR and drops the facts and hot answers here: the next request
// for the content goes to ECR.
func TestDeleteIsForwardedAndForgotten(t *testing.T) {
	s := startStack(t, t.TempDir(), "push: true", deleting)
	layer := layerOf(1, 5000)
	m := s.push("team/app", "v1", layer)
	s.want(201, "PUT", "/v2/team/app/manifests/v2", m.Raw, "Content-Type", m.MediaType)
	base, blob := "/v2/team/app/manifests/", "/v2/team/app/blobs/"+digest.FromBytes(layer).String()
	for range 3 { // hot
		s.want(200, "GET", base+"v1", nil)
		s.want(200, "GET", base+m.Digest.String(), nil)
		s.want(200, "GET", blob, nil)
	}
	s.want(202, "DELETE", base+"v1", nil)
	s.want(404, "GET", base+"v1", nil)
	s.want(404, "DELETE", base+"v1", nil)
	s.want(200, "GET", base+"v2", nil)
	s.want(202, "DELETE", base+m.Digest.String(), nil)
	if _, ok := s.ecr.Image("team/app", m.Digest.String()); ok {
		t.Error("ECR has the image")
	}
	s.ecr.ResetCounters()
	for _, path := range []string{base + "v2", base + m.Digest.String(), blob} {
		for _, method := range []string{"GET", "HEAD"} {
			if r := s.do(method, path, nil); r.StatusCode != http.StatusNotFound && path != blob {
				t.Errorf("%s %s: %s", method, path, r.Status)
			}
		}
	}
	<-s.ecr.Idle()
	if s.ecr.Count(ecrtest.KindBlobHead) == 0 {
		t.Error("nobody asked ECR whether the repository still has the layer")
	}
	// The same again is a push like the first.
	s.push("team/app", "v1", layer)
	s.holds("team/app", "v1", m, layer)
	s.want(200, "GET", base+"v1", nil)
}

// An image that an index names is kept by ECR, and the client is told why; layers cannot be deleted
// one by one.
func TestDeleteRefusedByECR(t *testing.T) {
	s := startStack(t, t.TempDir(), "push: true", deleting)
	layer := layerOf(1, 5000)
	m := s.push("team/app", "v1", layer)
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"` + m.MediaType + `","digest":"` + m.Digest.String() + `","size":` + strconv.Itoa(len(m.Raw)) + `}]}`)
	s.want(201, "PUT", "/v2/team/app/manifests/all", index, "Content-Type", "application/vnd.oci.image.index.v1+json")
	if _, text := s.refused(403, "DENIED", "DELETE", "/v2/team/app/manifests/"+m.Digest.String(), nil); !strings.Contains(text, "index") {
		t.Errorf("the message is %q", text)
	}
	s.want(200, "GET", "/v2/team/app/manifests/"+m.Digest.String(), nil)
	if _, text := s.refused(405, "UNSUPPORTED", "DELETE", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil); !strings.Contains(text, "Amazon ECR") {
		t.Errorf("the message is %q", text)
	}
}

// A registry with a call for it deletes layers, too, and a push that follows sends the layer again.
func TestDeleteBlob(t *testing.T) {
	sw := ecrtest.DefaultSwitches()
	sw.BlobDelete = true
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Switches: &sw})
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(), "hosts: [docker.io]", "hosts: [docker.io]\n  push: true\n  delete: true")
	layer := layerOf(1, 5000)
	d := s.upload("hub/team/app", layer)
	s.want(200, "HEAD", "/v2/hub/team/app/blobs/"+d.String(), nil)
	s.want(202, "DELETE", "/v2/hub/team/app/blobs/"+d.String(), nil)
	s.want(404, "HEAD", "/v2/hub/team/app/blobs/"+d.String(), nil)
	s.want(404, "DELETE", "/v2/hub/team/app/blobs/"+d.String(), nil)
	s.push("hub/team/app", "v1", layer)
	if !hub.HasBlob("team/app", d) {
		t.Error("the layer was not sent again")
	}
}

// Deleting has to be switched on for an upstream, and the right to push does not include it.
func TestDeleteRights(t *testing.T) {
	off := startStack(t, t.TempDir())
	m := off.push("team/app", "v1", layerOf(1, 100))
	if _, text := off.refused(405, "UNSUPPORTED", "DELETE", "/v2/team/app/manifests/v1", nil); !strings.Contains(text, "this mirror does not accept deletions") {
		t.Errorf("the message is %q", text)
	}
	off.want(200, "HEAD", "/v2/team/app/manifests/"+m.Digest.String(), nil)

	rules := `{users: [bob], repositories: ["*"], actions: [pull, push]}, {users: [alice], repositories: ["team/*"], actions: [pull, push, delete]}`
	s := startStack(t, t.TempDir(), append(withAuth(usersOf(t, rules), ""), "push: true", deleting)...)
	alice, bob := []string{"Authorization", basic("alice", "wonderland")}, []string{"Authorization", basic("bob", "builder")}
	const there, other = "/v2/team/app/manifests/v1", "/v2/other/app/manifests/v1"
	pushDirectly(t, s.ecr, "team/app", "v1", layerOf(2, 100))
	pushDirectly(t, s.ecr, "other/app", "v1", layerOf(2, 100))
	if _, text := s.refused(403, "DENIED", "DELETE", there, nil, bob...); !strings.Contains(text, "may not delete team/app") {
		t.Errorf("the message is %q", text)
	}
	s.refused(403, "DENIED", "DELETE", other, nil, alice...)
	s.refused(401, "UNAUTHORIZED", "DELETE", there, nil)
	s.want(200, "GET", there, nil, bob...)
	s.want(202, "DELETE", there, nil, alice...)

	anybody := startStack(t, t.TempDir(), "{name: main,", "{name: main, allow_anonymous_push: true,", "push: true", deleting)
	pushDirectly(t, anybody.ecr, "team/app", "v1", layerOf(2, 100))
	for address, want := range map[string]int{"192.0.2.1:40000": 403, "127.0.0.1:40000": 202} {
		if r := anybody.from(address, "DELETE", there, nil); want == 403 && r.StatusCode != want {
			t.Errorf("DELETE from %s: %s, want %d", address, r.Status, want)
		}
	}
	anybody.want(404, "GET", there, nil)
}
