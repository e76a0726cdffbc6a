package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dray/upstream/ecrtest"

	"github.com/google/go-containerregistry/pkg/v1/types"
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
	m.deploy("buildkit/buildkitd.toml", "buildkit/buildkitd.toml")
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
	b.version = m.run(t, b.client[0], "--version")
	return b
}

// build is the command that builds what lies in the context directory and pushes it.
func (b *buildkit) build(ref string, more ...string) []string {
	return slices.Concat(b.client, []string{"build", "--frontend", "dockerfile.v0", "--progress", "plain",
		"--local", "context=" + b.context, "--local", "dockerfile=" + b.context,
		"--output", "type=image,name=" + drayName + ":5000/" + ref + ",push=true"}, more)
}

func TestBuildKit(t *testing.T) {
	s := newStack(t, stackOptions{configure: withHosted})
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
	row(t, "BuildKit", version, "build on a base image from the mirror, push, export the build cache", func(t *testing.T) {
		build(t, "buildkit/app:1")
		if s.hub.Count(ecrtest.KindManifestGet) == 0 {
			t.Error("the base image did not come from Docker Hub")
		}
		s.ecr.digest(t, "buildkit/app:1")
		s.ecr.digest(t, "buildkit/cache:1")
		s.sameBytes(t, "buildkit/app:1")
	})
	row(t, "BuildKit", version, "build again with an empty BuildKit: all from the build cache, nothing from Docker Hub", func(t *testing.T) {
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
		out, err := m.try(t, with("buildkit/app:3", "buildkit/cache:3", "image-manifest=false")...)
		if err == nil || !strings.Contains(out, "image-manifest=true,oci-mediatypes=true") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// withHosted adds a route that keeps what it gets to the registry listener.
func withHosted(config map[string]any) {
	config["upstreams"] = append(config["upstreams"].([]any), map[string]any{"name": "hosted", "kind": "local", "prefixes": []string{"hosted"}})
	config["listeners"].([]any)[1].(map[string]any)["upstreams"] = []string{"ecr", "hosted"}
}
