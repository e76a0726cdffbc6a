package e2e

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// buildkit is a BuildKit daemon of its own, and the client that speaks to it.
type buildkit struct {
	*machine
	client  []string // buildctl and where the daemon is
	context string   // directory with the Dockerfile
	version string
}

func startBuildKit(t *testing.T, m *machine) *buildkit {
	t.Helper()
	m.put("buildkit/buildkitd.toml", []byte("# where builds are pushed\n[registry.\""+drayName+":5000\"]\n  ca = [\"/etc/dray/cert.pem\"]\n"))
	m.setup(t, "buildkit", "")
	write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
	b := &buildkit{machine: m, context: filepath.Join(m.dir, "context"),
		client: []string{need(t, "buildctl"), "--addr", "unix://" + filepath.Join(m.dir, "buildkit.sock")}}
	need(t, "runc")
	p := m.start("buildkitd", need(t, "buildkitd"), "--config", "/etc/buildkit/buildkitd.toml", "--root", filepath.Join(m.dir, "root"),
		"--addr", b.client[2], "--containerd-worker=false", "--oci-worker-snapshotter=native", "--oci-worker-net=host", "--oci-worker-no-process-sandbox=false")
	p.await("buildctl debug workers", func(context.Context) error {
		if out, err := m.try(t, append(b.client, "debug", "workers")...); err != nil {
			return errors.New(out)
		}
		return nil
	})
	// A binary built from the Go module proxy does not know its version; its file name has it.
	b.version = cmp.Or(versionNumber.FindString(filepath.Base(b.client[0])), m.run(t, b.client[0], "--version"))
	return b
}

// build is the command that builds what lies in the context directory and pushes it.
func (b *buildkit) build(ref string, more ...string) []string {
	return append(b.buildTo("type=image,name="+drayName+":5000/"+ref+",push=true"), more...)
}

// buildTo is the command that builds what lies in the context directory.
func (b *buildkit) buildTo(output string) []string {
	return slices.Concat(b.client, []string{"build", "--frontend", "dockerfile.v0", "--progress", "plain",
		"--local", "context=" + b.context, "--local", "dockerfile=" + b.context, "--output", output})
}

// pullCommand is the command that builds on an image, and so pulls it.
func (b *buildkit) pullCommand(t testing.TB, ref string) []string {
	t.Helper()
	write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM "+ref+"\nCOPY Dockerfile /\n"))
	return b.buildTo("type=oci,dest=" + filepath.Join(b.dir, "built.tar"))
}

func TestBuildKit(t *testing.T) {
	s := newStack(t, stackOptions{configure: withHosted, doubles: withMounts})
	m := newMachine(t, s)
	b := startBuildKit(t, m)
	client, version := b.client, b.version
	write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM busybox:1\nCOPY data /data\nRUN sha256sum /data > /sum && echo built > /built\n"))
	write(t, filepath.Join(b.context, "data"), []byte(strings.Repeat("what goes into the image ", 40_000)))
	s.hub.push(t, "library/busybox:1", busybox(t, types.OCIManifestSchema1))

	with := func(ref, cache, form string) []string {
		cache = "type=registry,ref=" + drayName + ":5000/" + cache
		return b.build(ref, "--export-cache", cache+",mode=max,"+form, "--import-cache", cache)
	}
	build := func(t *testing.T, ref string) string {
		t.Helper()
		return m.run(t, with(ref, "buildkit/cache:1", "image-manifest=true,oci-mediatypes=true,compression=zstd,force-compression=true")...)
	}
	opPush.row(t, "BuildKit", version, "build on a base image from the mirror, push, export the build cache", func(t *testing.T) {
		build(t, "buildkit/app:1")
		if s.hub.Count(ecrtest.KindManifestGet) == 0 {
			t.Error("the base image did not come from Docker Hub")
		}
		s.ecr.digest(t, "buildkit/app:1")
		s.ecr.digest(t, "buildkit/cache:1")
		s.sameBytes(t, "buildkit/app:1")
	})
	opCache.row(t, "BuildKit", version, "build again with an empty BuildKit: all from the build cache, nothing from Docker Hub", func(t *testing.T) {
		m.run(t, append(client, "prune", "--all")...)
		hub, ecr := s.hub.asked(), s.ecr.asked()
		out := build(t, "buildkit/app:2")
		if !strings.Contains(out, "CACHED") {
			t.Errorf("the step was not found in the build cache:\n%s", out)
		}
		hub.none(t, mirrored...)
		ecr.none(t, ecrtest.KindBlobGet, ecrtest.KindObjectGet)
		s.sameBytes(t, "buildkit/app:2")
	})
	opAgain.row(t, "BuildKit", version, "push again: nothing is uploaded", func(t *testing.T) {
		m.run(t, b.build("buildkit/app:3")...) // built here, and not from the imported cache
		asked := s.ecr.asked()
		m.run(t, b.build("buildkit/app:3")...)
		asked.none(t, uploads...)
	})
	opMount.row(t, "BuildKit", version, "push to another repository: layers are mounted", func(t *testing.T) {
		mounted(t, s, 2, func() { m.run(t, b.build("buildkit/copy:1")...) })
		s.sameBytes(t, "buildkit/copy:1")
	})
	for form, settings := range map[string]string{
		"as a manifest, zstd":   "image-manifest=true,oci-mediatypes=true,compression=zstd,force-compression=true",
		"as an index of layers": "image-manifest=false",
	} {
		row(t, "BuildKit", version, "build cache on a route that keeps what it gets, "+form, func(t *testing.T) {
			cache := "hosted/buildkit/cache:" + strings.ReplaceAll(form, ", ", "-")
			cache = strings.ReplaceAll(cache, " ", "-")
			m.run(t, append(client, "prune", "--all")...)
			m.run(t, with("hosted/app:1", cache, settings)...)
			m.run(t, append(client, "prune", "--all")...)
			s.dray.kill() // what was acknowledged survives that
			s.start()
			hub, ecr := s.hub.asked(), s.ecr.asked()
			if out := m.run(t, with("hosted/app:2", cache, settings)...); !strings.Contains(out, "CACHED") {
				t.Errorf("the step was not found in the build cache:\n%s", out)
			}
			hub.none(t, mirrored...)
			ecr.none(t, mirrored...)
		})
	}
	row(t, "BuildKit", version, "build cache as an index of layers, which ECR refuses: the text says what to set", func(t *testing.T) {
		out, err := m.try(t, with("buildkit/app:4", "buildkit/cache:3", "image-manifest=false")...)
		if err == nil || !strings.Contains(out, "image-manifest=true,oci-mediatypes=true") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestBuildKitPlatforms builds for two platforms, on a base image that came from dray as well.
func TestBuildKitPlatforms(t *testing.T) {
	s := newStack(t, stackOptions{})
	b := startBuildKit(t, newMachine(t, s))
	write(t, filepath.Join(b.context, "data"), []byte("data\n"))
	write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM scratch\nCOPY data /data\n"))
	platforms := "--opt=platform=linux/amd64,linux/arm64"
	opIndex.row(t, "BuildKit", b.version, "build for several platforms, and push", func(t *testing.T) {
		b.run(t, b.build("buildkit/multi:1", platforms)...)
		wholeIndex(t, s, "buildkit/multi:1")
	})
	opPull.row(t, "BuildKit", b.version, "build on what was pushed: nothing is read from ECR", func(t *testing.T) {
		b.run(t, append(b.client, "prune", "--all")...)
		write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM "+at("buildkit/multi:1")+"\nCOPY data /more\n"))
		asked := s.ecr.asked()
		b.run(t, b.build("buildkit/more:1", platforms)...)
		if n := asked.bytesSince(); n > 0 {
			t.Errorf("%d bytes were read from ECR:\n%s", n, asked.log())
		}
		wholeIndex(t, s, "buildkit/more:1")
	})
}

// withHosted adds a route that keeps what it gets to the registry listener.
func withHosted(config map[string]any) {
	config["upstreams"] = append(config["upstreams"].([]any), map[string]any{"name": "hosted", "kind": "local", "prefixes": []string{"hosted"}})
	config["listeners"].([]any)[1].(map[string]any)["upstreams"] = []string{"ecr", "hosted"}
}
