package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// tool is a client without a daemon. Functions for operations that it lacks are nil. References are
// repository and tag at dray.
type tool struct {
	name, version string
	tag           string // of its images; none: 1
	pull, push    func(t *testing.T, ref string)
	index         func(t *testing.T, ref string) // pushes an image of several platforms
	large         func(t *testing.T, ref string) // pushes an image with a layer that takes a while
	copy          func(t *testing.T, from, to string)
	attach        func(t *testing.T, ref string)
	remove        func(t *testing.T, ref string)
}

// withMounts has ECR mount blobs, which is a setting of the account.
func withMounts(o *ecrtest.Options) { o.BlobMounting = true }

// withDeletes lets clients delete from ECR.
func withDeletes(config map[string]any) {
	for _, u := range config["upstreams"].([]any) {
		if upstream := u.(map[string]any); upstream["name"] == "ecr" {
			upstream["delete"] = true
		}
	}
}

// TestOperations has each client that needs no daemon do each of the operations that it knows, on
// the same image.
func TestOperations(t *testing.T) {
	s := newStack(t, stackOptions{doubles: withMounts, configure: withDeletes})
	m := newContainersMachine(t, s)
	write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
	one, multi := layouts(t, m)
	// A missing client skips only its own tests.
	for name, client := range map[string]func(t *testing.T, m *machine, one, multi string) tool{
		"crane": crane, "regctl": regctl, "oras": oras, "Skopeo": skopeo, "Podman": podman, "Buildah": buildah, "Helm": helm,
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, m, one, multi)
			c.name = name
			c.operate(t, s)
		})
	}
}

// layouts puts an image and an index into directories in the layout of OCI, where both have the tag
// 1.
func layouts(t testing.TB, m *machine) (one, multi string) {
	t.Helper()
	one, multi = filepath.Join(m.dir, "one"), filepath.Join(m.dir, "multi")
	for dir, add := range map[string]func(layout.Path, ...layout.Option) error{
		one: func(p layout.Path, o ...layout.Option) error {
			return p.ReplaceImage(randomImage(t, types.OCIManifestSchema1, 3, 100_000), match.Name("1"), o...)
		},
		multi: func(p layout.Path, o ...layout.Option) error {
			return p.ReplaceIndex(multiArchRandom(t), match.Name("1"), o...)
		},
	} {
		p, err := layout.Write(dir, empty.Index)
		if err != nil {
			t.Fatal(err)
		}
		if err := add(p, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"})); err != nil {
			t.Fatal(err)
		}
	}
	return one, multi
}

// operate runs what the tool can do.
func (c tool) operate(t *testing.T, s *stack) {
	repo, tag := "operations/"+strings.ToLower(c.name), cmp.Or(c.tag, "1")
	app := repo + "/app:" + tag
	do := func(op operation, able bool, does string, body func(t *testing.T)) {
		if able {
			op.row(t, c.name, c.version, does, body)
		}
	}
	do(opPush, true, "push", func(t *testing.T) {
		c.push(t, app)
		s.sameBytes(t, app)
	})
	do(opAgain, true, "push again: nothing is uploaded", func(t *testing.T) {
		asked := s.ecr.asked()
		c.push(t, app)
		asked.none(t, uploads...)
	})
	do(opPull, c.pull != nil, "pull: nothing is read from ECR", func(t *testing.T) {
		asked := s.ecr.asked()
		c.pull(t, app)
		asked.none(t, mirrored...)
	})
	do(opIndex, c.index != nil, "push an image of several platforms", func(t *testing.T) {
		c.index(t, repo+"/app:multi")
		wholeIndex(t, s, repo+"/app:multi")
	})
	do(opMount, c.copy != nil, "push to another repository: layers are mounted", func(t *testing.T) {
		mounted(t, s, 3, func() { c.copy(t, app, repo+"/copy:1") })
		s.sameBytes(t, repo+"/copy:1")
	})
	do(opAttach, c.attach != nil, "attach an artifact to the image", func(t *testing.T) {
		c.attach(t, app)
		there, options := s.registry(t, app)
		index, err := remote.Referrers(there.Context().Digest(s.ecr.digest(t, app)), options...)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := index.IndexManifest(); err != nil || len(found.Manifests) == 0 {
			t.Errorf("referrers: %+v, %v", found, err)
		}
	})
	do(opDelete, c.remove != nil, "delete", func(t *testing.T) {
		c.remove(t, app)
		if _, ok := s.ecr.Image(repo+"/app", tag); ok {
			t.Error("ECR still has it")
		}
		there, options := s.registry(t, app)
		if _, err := remote.Head(there, options...); err == nil {
			t.Error("dray still has it")
		}
	})
}

// mounted holds a push to having its layers mounted. The configuration may be sent: some clients
// never ask to mount it.
func mounted(t *testing.T, s *stack, layers int64, push func()) {
	t.Helper()
	asked := s.ecr.asked()
	push()
	if asked.since(ecrtest.KindMount) < layers || asked.since(ecrtest.KindUploadPut, "CompleteLayerUpload") > 1 {
		t.Errorf("not all of %d layers were mounted:\n%s", layers, asked.log())
	}
}

// wholeIndex holds ECR to having an index with its images.
func wholeIndex(t *testing.T, s *stack, ref string) {
	t.Helper()
	r := s.ecr.reference(t, ref)
	index, err := remote.Index(r, s.ecr.remote(t)...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) < 2 {
		t.Errorf("%s has %d images", ref, len(manifest.Manifests))
	}
	for _, child := range manifest.Manifests {
		if _, ok := s.ecr.Image(r.Context().RepositoryStr(), child.Digest.String()); !ok {
			t.Errorf("ECR lacks %s of %s", child.Digest, ref)
		}
	}
}

// at is what dray calls something.
func at(ref string) string { return drayName + ":5000/" + ref }

// trusting is a client that trusts dray by the variable of Go programs, and finds its password
// where Docker keeps it.
func trusting(t *testing.T, m *machine, name string) (do func(t *testing.T, args ...string) string, version string) {
	t.Helper()
	path := need(t, name)
	return func(t *testing.T, args ...string) string {
		t.Helper()
		return m.run(t, append([]string{need(t, "env"), "SSL_CERT_FILE=/etc/dray/cert.pem", path}, args...)...)
	}, versionNumber.FindString(filepath.Base(path))
}

func crane(t *testing.T, m *machine, one, multi string) tool {
	do, version := trusting(t, m, "crane")
	return tool{
		version: version,
		pull:    func(t *testing.T, ref string) { do(t, "pull", at(ref), filepath.Join(m.dir, "crane.tar")) },
		push:    func(t *testing.T, ref string) { do(t, "push", one, at(ref)) },
		index:   func(t *testing.T, ref string) { do(t, "push", multi, at(ref)) },
		copy:    func(t *testing.T, from, to string) { do(t, "copy", at(from), at(to)) },
		remove:  func(t *testing.T, ref string) { do(t, "delete", at(ref)) },
	}
}

func regctl(t *testing.T, m *machine, one, multi string) tool {
	do, version := trusting(t, m, "regctl")
	return tool{
		version: version,
		pull:    func(t *testing.T, ref string) { do(t, "image", "export", at(ref), filepath.Join(m.dir, "regctl.tar")) },
		push:    func(t *testing.T, ref string) { do(t, "image", "copy", "ocidir://"+one+":1", at(ref)) },
		index:   func(t *testing.T, ref string) { do(t, "image", "copy", "ocidir://"+multi+":1", at(ref)) },
		copy:    func(t *testing.T, from, to string) { do(t, "image", "copy", at(from), at(to)) },
		attach: func(t *testing.T, ref string) {
			do(t, "artifact", "put", "--artifact-type", "application/vnd.example.note", "--subject", at(ref), "--file", "/etc/hosts")
		},
		remove: func(t *testing.T, ref string) { do(t, "tag", "delete", at(ref)) },
	}
}

func oras(t *testing.T, m *machine, one, multi string) tool {
	do, version := trusting(t, m, "oras")
	return tool{
		version: version,
		pull: func(t *testing.T, ref string) {
			do(t, "copy", "--to-oci-layout", at(ref), filepath.Join(m.dir, "oras")+":1")
		},
		push:  func(t *testing.T, ref string) { do(t, "copy", "--from-oci-layout", one+":1", at(ref)) },
		index: func(t *testing.T, ref string) { do(t, "copy", "--from-oci-layout", multi+":1", at(ref)) },
		copy:  func(t *testing.T, from, to string) { do(t, "copy", at(from), at(to)) },
		attach: func(t *testing.T, ref string) {
			do(t, "attach", "--disable-path-validation", "--artifact-type", "application/vnd.example.note", at(ref), "/etc/hosts:text/plain")
		},
		remove: func(t *testing.T, ref string) { do(t, "manifest", "delete", "--force", at(ref)) },
	}
}

func skopeo(t *testing.T, m *machine, one, multi string) tool {
	path := need(t, "skopeo")
	do := func(t *testing.T, args ...string) {
		t.Helper()
		m.run(t, append([]string{path, "--insecure-policy"}, args...)...)
	}
	return tool{
		version: m.run(t, path, "--version"),
		pull: func(t *testing.T, ref string) {
			do(t, "copy", "docker://"+at(ref), "dir:"+filepath.Join(m.dir, "skopeo"))
		},
		push:   func(t *testing.T, ref string) { do(t, "copy", "oci:"+one+":1", "docker://"+at(ref)) },
		index:  func(t *testing.T, ref string) { do(t, "copy", "--all", "oci:"+multi+":1", "docker://"+at(ref)) },
		copy:   func(t *testing.T, from, to string) { do(t, "copy", "docker://"+at(from), "docker://"+at(to)) },
		remove: func(t *testing.T, ref string) { do(t, "delete", "docker://"+at(ref)) },
	}
}

func podman(t *testing.T, m *machine, one, multi string) tool {
	return stored(t, m, "Podman", one, multi, "--cgroup-manager", "cgroupfs", "--events-backend", "none")
}

func buildah(t *testing.T, m *machine, one, multi string) tool {
	return stored(t, m, "Buildah", one, multi)
}

// stored is Podman or Buildah, which keep images in a store of their own.
func stored(t *testing.T, m *machine, name, one, multi string, flags ...string) tool {
	path, dir := need(t, strings.ToLower(name)), filepath.Join(m.dir, name)
	// vfs works on every file system.
	flags = append(flags, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs")
	do := func(t *testing.T, args ...string) string {
		t.Helper()
		return m.run(t, append(append([]string{path}, flags...), args...)...)
	}
	have := ""
	image := func(t *testing.T) string {
		if have == "" {
			have = do(t, "pull", "--quiet", "oci:"+one+":1")
		}
		return have
	}
	return tool{
		version: m.run(t, path, "--version"),
		pull: func(t *testing.T, ref string) {
			do(t, "rmi", "--all", "--force")
			have = do(t, "pull", "--quiet", at(ref))
		},
		push: func(t *testing.T, ref string) { do(t, "push", image(t), "docker://"+at(ref)) },
		index: func(t *testing.T, ref string) {
			do(t, "manifest", "create", "list")
			do(t, "manifest", "add", "--all", "list", "oci:"+multi+":1")
			do(t, "manifest", "push", "--all", "list", "docker://"+at(ref))
		},
		copy: func(t *testing.T, _, to string) { do(t, "push", image(t), "docker://"+at(to)) },
	}
}

func helm(t *testing.T, m *machine, _, _ string) tool {
	do, version := trusting(t, m, "helm")
	auth := []string{"--registry-config", filepath.Join(m.home, ".docker/config.json"), "--ca-file", "/etc/dray/cert.pem"}
	chart := filepath.Join(m.dir, "app")
	write(t, filepath.Join(chart, "Chart.yaml"), []byte("apiVersion: v2\nname: app\nversion: 1.0.0\n"))
	do(t, "package", chart, "--destination", m.dir)
	// Helm makes the reference out of the name and the version of the chart.
	named := func(ref string) (repo string) { return "oci://" + at(filepath.Dir(ref)) }
	return tool{
		version: version, tag: "1.0.0",
		pull: func(t *testing.T, ref string) {
			to := filepath.Join(m.dir, "charts")
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			do(t, append([]string{"pull", named(ref) + "/app", "--version", "1.0.0", "--destination", to}, auth...)...)
		},
		push: func(t *testing.T, ref string) {
			do(t, append([]string{"push", chart + "-1.0.0.tgz", named(ref)}, auth...)...)
		},
	}
}
