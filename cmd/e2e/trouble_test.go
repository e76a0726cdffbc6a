package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// TestDockerInTrouble is about what a user of Docker sees while the registries behind dray fail.
// Docker itself gives up at the first 429 of a push, and starts a pull anew, at Docker Hub, where a
// mirror fails.
func TestDockerInTrouble(t *testing.T) {
	s := newStack(t, stackOptions{configure: func(config map[string]any) {
		for _, u := range config["upstreams"].([]any) {
			u.(map[string]any)["tags"] = map[string]any{"fresh": "0s", "not_found": "0s"}
		}
	}})
	m := newMachine(t, s)
	m.setup(t, "docker", m.run(t, need(t, "dockerd"), "--version"))
	write(t, m.home+"/.docker/config.json", dockerAuth())
	d := startDocker(t, m)
	const registry = drayName + ":5000/"
	img := randomImage(t, types.DockerManifestSchema2, 3, 2<<20)
	s.hub.push(t, "library/app:1", img)

	row(t, "Docker", d.version, "pull while the storage cuts answers short and the registry fails once", func(t *testing.T) {
		s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Count: 2, CutAt: ecrtest.At(300_000)})
		s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestGet, ecrtest.KindManifestHead}, Status: http.StatusServiceUnavailable})
		d.run(t, "pull", "app:1")
		s.hub.ClearFaults()
		if id, digest := d.image(t, "app:1"); id != configOf(t, img) || digest != digestOf(t, img) {
			t.Errorf("pulled image %s with digest %s, want %s with %s", id, digest, configOf(t, img), digestOf(t, img))
		}
	})
	row(t, "Docker", d.version, "pull what dray holds while Docker Hub is down, throttles, or refuses", func(t *testing.T) {
		for _, status := range []int{http.StatusBadGateway, http.StatusTooManyRequests, http.StatusForbidden} {
			d.forget(t)
			s.hub.AddFault(ecrtest.Fault{Count: -1, Status: status})
			d.run(t, "pull", "app:1")
			s.hub.ClearFaults()
		}
	})
	row(t, "Docker", d.version, "push while ECR throttles", func(t *testing.T) {
		s.ecr.CreateRepository("team/app")
		throttled := ecrtest.Fault{Count: 2, Status: http.StatusTooManyRequests}
		for _, kind := range []ecrtest.Kind{ecrtest.KindUploadStart, ecrtest.KindUploadPut, ecrtest.KindManifestPut} {
			throttled.Kinds = []ecrtest.Kind{kind}
			s.ecr.AddFault(throttled)
		}
		d.load(t, registry+"team/app:1", img)
		d.run(t, "push", registry+"team/app:1")
		s.ecr.ClearFaults()
		s.sameBytes(t, "team/app:1")
	})
	row(t, "Docker", d.version, "push while ECR closes connections and loses answers", func(t *testing.T) {
		s.ecr.CreateRepository("team/lossy")
		s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut, ecrtest.KindUploadPatch}, Count: 2, CutRequestAt: ecrtest.At(500_000)})
		s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart, ecrtest.KindManifestPut}, DropAnswer: true})
		d.load(t, registry+"team/lossy:1", randomImage(t, types.DockerManifestSchema2, 3, 2<<20))
		d.run(t, "push", registry+"team/lossy:1")
		s.ecr.ClearFaults()
		s.sameBytes(t, "team/lossy:1")
	})
	row(t, "Docker", d.version, "push that IAM denies: the user is told", func(t *testing.T) {
		s.ecr.CreateRepository("team/denied")
		s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:PutImage"})
		d.load(t, registry+"team/denied:1", img)
		out, err := d.try(t, "push", registry+"team/denied:1")
		if err == nil || !strings.Contains(out, "not authorized to perform: ecr:PutImage") {
			t.Errorf("push: %v\n%s", err, out)
		}
		s.ecr.SetDenials()
	})
	row(t, "Docker", d.version, "pull of what is not there: the user is told", func(t *testing.T) {
		out, err := d.try(t, "pull", registry+"team/app:none")
		if err == nil || !strings.Contains(out, "manifest unknown") {
			t.Errorf("pull: %v\n%s", err, out)
		}
	})
}
