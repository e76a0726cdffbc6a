package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"

	"dray/upstream/ecrtest"
)

// The content that the checks have to find is split here, so that scanners do not find it in this
// file.
const (
	plantedKey = "AK" + "IAQ7PZ3XK2MLWN5VYT"
	eicar      = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EIC` + `AR-STANDARD-ANTIVIRUS-` + `TEST-FILE!$H+H*`
	// eicarSignature is a line of a database of ClamAV: MD5, size and name.
	eicarSignature = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n"
)

// checkCase is an image that does not pass, and its clean twin.
type checkCase struct {
	checks    string // a member of a set of checks
	tag       string // "" is v1
	bad, good v1.Image
	says      []string // on the terminal of who pushes bad
	silent    string   // what nobody is told
}

// TestDockerChecks pushes real images with real findings: each is refused in words on Docker's
// terminal and leaves nothing in ECR that could be pulled, and its clean twin passes.
func TestDockerChecks(t *testing.T) {
	clamd := startClamd(t)
	plain := func(name string) []byte { return files(t, name, "content of "+name+"\n") }
	img := func(config v1.Config, layers ...[]byte) v1.Image {
		return image(t, types.DockerManifestSchema2, config, layers...)
	}
	five := func(second []byte) v1.Image {
		return img(v1.Config{}, plain("etc/one"), second, plain("etc/three"), plain("etc/four"), plain("etc/five"))
	}
	clean := img(v1.Config{}, plain("etc/motd"))
	cases := map[string]checkCase{
		"secret": {
			checks: "secrets: {mode: enforce}",
			bad:    five(files(t, "app/settings.ini", "region=eu\naccess="+plantedKey+"\n")), good: five(plain("app/settings.ini")),
			says:   []string{"[secrets/aws-access-key]", "layer 2 of 5", "/app/settings.ini", "line 2"},
			silent: plantedKey,
		},
		"malware": {
			checks: "clamd: {mode: enforce, address: '" + clamd + "'}",
			bad:    five(files(t, "srv/download.com", eicar)), good: five(files(t, "srv/download.com", eicar[:60])),
			says: []string{"[clamd/malware]", "Eicar-Test-Signature", "layer 2 of 5", "/srv/download.com"},
		},
		"user": {
			checks: "runtime: {mode: enforce, non_root: true}",
			bad:    clean, good: img(v1.Config{User: "1000:1000"}, plain("etc/motd")),
			says: []string{"[runtime/user]"},
		},
		"label": {
			checks: "metadata: {mode: enforce, required: [{key: team, in: label, pattern: core|web}]}",
			bad:    img(v1.Config{Labels: map[string]string{"team": "nobody"}}, plain("etc/motd")),
			good:   img(v1.Config{Labels: map[string]string{"team": "web"}}, plain("etc/motd")),
			says:   []string{"[metadata/required]", "team"},
		},
		"size": {
			checks: "shape: {mode: enforce, max_layer_bytes: 1MiB}",
			bad:    randomImage(t, types.DockerManifestSchema2, 1, 2<<20), good: randomImage(t, types.DockerManifestSchema2, 3, 500_000),
			says: []string{"[shape/layer-size]", "layer 1 of 1"},
		},
		"tag": {
			checks: "names: {mode: enforce, forbidden_tags: [latest]}",
			bad:    clean, tag: "latest", good: clean,
			says: []string{"[names/forbidden-tag]", "latest"},
		},
		"attestation": {
			checks: "attestations: {mode: enforce, provenance: true}",
			bad:    clean,
			says:   []string{"[attestations/provenance]", "--provenance=true"},
		},
		"base": {
			checks: fmt.Sprintf("base: {mode: enforce, allowed: ['docker.io/library/good:*'], images: [{name: 'docker.io/library/good:1', diff_ids: [%s]}, {name: 'docker.io/somebody/evil:1', diff_ids: [%s]}]}",
				digest.FromBytes(plain("etc/good")), digest.FromBytes(plain("etc/evil"))),
			bad: img(v1.Config{}, plain("etc/evil"), plain("etc/motd")), good: img(v1.Config{}, plain("etc/good"), plain("etc/motd")),
			says: []string{"[base/forbidden]", "docker.io/somebody/evil:1", "docker.io/library/good:*"},
		},
		"bomb": {
			checks: "archive: {max_ratio: 100}",
			bad:    img(v1.Config{}, plain("etc/motd"), files(t, "opt/zeros", string(make([]byte, 72<<20)))),
			good:   img(v1.Config{}, plain("etc/motd"), files(t, "opt/zeros", string(make([]byte, 1<<20)))),
			says:   []string{"[archive/ratio]", "layer 2 of 2", "more than 100 times"},
		},
	}
	sets := map[string]string{}
	for name, c := range cases {
		sets[name] = c.checks
	}
	s := newStack(t, stackOptions{configure: func(config map[string]any) { withChecks(t, config, sets) }})
	m := newMachine(t, s)
	write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
	d := startDocker(t, m)
	push := func(t *testing.T, repo, tag string, img v1.Image) (string, error) {
		t.Helper()
		ref := drayName + ":5000/" + repo + ":" + tag
		d.load(t, ref, img)
		return d.try(t, "push", ref)
	}
	for name, c := range cases {
		row(t, "Docker", d.version, "push what a check refuses: "+name, func(t *testing.T) {
			repo, asked := "checked/"+name, s.ecr.asked()
			out, err := push(t, repo, cmp.Or(c.tag, "v1"), c.bad)
			refused(t, s, asked, repo, out, err, c.says...)
			if c.silent != "" && strings.Contains(out, c.silent) {
				t.Error("the secret is told")
			}
			if c.good == nil {
				return
			}
			if out, err := push(t, repo, "v1", c.good); err != nil {
				t.Fatalf("the clean twin: %v\n%s", err, out)
			}
			s.sameBytes(t, repo+":v1")
		})
	}
}

// TestBuildKitChecks is about what BuildKit alone pushes: an index with attestations, whose images
// are pushed by their digests before it.
func TestBuildKitChecks(t *testing.T) {
	s := newStack(t, stackOptions{configure: func(config map[string]any) {
		withChecks(t, config, map[string]string{
			"attestation": "attestations: {mode: enforce, provenance: true}",
			"secret":      "secrets: {mode: enforce}",
			"user":        "runtime: {mode: enforce, non_root: true}",
		})
	}})
	b := startBuildKit(t, newMachine(t, s))
	dockerfile := func(lines ...string) {
		write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM scratch\nCOPY one /one\n"+strings.Join(lines, "\n")+"\nCOPY one /three\nCOPY one /four\nCOPY one /five\n"))
	}
	write(t, filepath.Join(b.context, "one"), []byte("nothing to see\n"))
	write(t, filepath.Join(b.context, "settings.ini"), []byte("region=eu\naccess="+plantedKey+"\n"))
	const attested = "--opt=attest:provenance=mode=min"
	for name, c := range map[string]struct {
		bad, good         []string // lines of the Dockerfile
		badOpts, goodOpts []string
		says              []string
	}{
		"attestation": {
			goodOpts: []string{attested},
			says:     []string{"[attestations/provenance]", "--provenance=true"},
		},
		"secret": {
			bad: []string{"COPY settings.ini /app/"}, good: []string{"COPY one /app/"}, badOpts: []string{attested}, goodOpts: []string{attested},
			says: []string{"[secrets/aws-access-key]", "layer 2 of 5", "/app/settings.ini"},
		},
		"user": {good: []string{"USER 1000"}, says: []string{"[runtime/user]"}},
	} {
		row(t, "BuildKit", b.version, "push what a check refuses: "+name, func(t *testing.T) {
			repo, asked := "checked/"+name, s.ecr.asked()
			dockerfile(c.bad...)
			out, err := b.try(t, b.build(repo+":v1", c.badOpts...)...)
			refused(t, s, asked, repo, out, err, c.says...)
			if strings.Contains(out, plantedKey) {
				t.Error("the secret is told")
			}
			dockerfile(c.good...)
			if out, err := b.try(t, b.build(repo+":v1", c.goodOpts...)...); err != nil {
				t.Fatalf("the clean twin: %v\n%s", err, out)
			}
			s.ecr.digest(t, repo+":v1")
		})
	}
}

// refused holds a push to having been refused with a text, and ECR to having nothing that could be
// pulled.
func refused(t *testing.T, s *stack, asked counts, repo, out string, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("the push succeeded:\n%s", out)
	}
	for _, want := range append(says, "failed, so the image was not stored", "/dray/reports/") {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not on the terminal:\n%s", want, out)
		}
	}
	s.ecr.quiet(t)
	asked.none(t, ecrtest.KindManifestPut, "PutImage")
	for _, img := range s.ecr.Images() {
		if img.Repository == repo {
			t.Errorf("ECR has %s of %s", img.Digest, repo)
		}
	}
}

// withChecks puts a set of checks before each of the repositories checked/NAME.
func withChecks(t *testing.T, config map[string]any, sets map[string]string) {
	t.Helper()
	var all []any
	var names []string
	for name, text := range sets {
		set := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &set); err != nil {
			t.Fatal(err)
		}
		set["name"], set["repositories"] = name, []string{"checked/" + name}
		all, names = append(all, set), append(names, name)
	}
	config["checks"] = all
	for _, u := range config["upstreams"].([]any) {
		if upstream := u.(map[string]any); upstream["name"] == "ecr" {
			upstream["checks"] = names
		}
	}
}

// files makes a layer: pairs of path and content.
func files(t *testing.T, pairs ...string) []byte {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return layer.Bytes()
}

// startClamd runs a ClamAV daemon that knows one signature, and returns its address as the checks
// want it.
func startClamd(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	socket := filepath.Join(dir, "clamd.sock")
	write(t, filepath.Join(dir, "signatures/eicar.hdb"), []byte(eicarSignature))
	write(t, filepath.Join(dir, "clamd.conf"), fmt.Appendf(nil, "Foreground yes\nLocalSocket %s\nDatabaseDirectory %s\nTemporaryDirectory %s\n",
		socket, filepath.Join(dir, "signatures"), dir))
	p := start(t, "clamd", environment(), need(t, "clamd"), "--config-file="+filepath.Join(dir, "clamd.conf"))
	p.await(socket, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return "unix:" + socket
}
