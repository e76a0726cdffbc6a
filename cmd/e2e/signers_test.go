package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// everyStage enforces every stage that judges images and can do so without a service.
const everyStage = `
names: {mode: enforce, semver: true}
shape: {mode: enforce, required_platforms: [linux/amd64]}
metadata: {mode: enforce, required: [{key: team, in: label}]}
runtime: {mode: enforce, non_root: true, secret_variables: true, setuid: true, ports: ["1024-65535"], add_from_url: true}
base: {mode: enforce, allowed: ["docker.io/library/good:*"], images: [{name: "docker.io/library/good:1", diff_ids: [%s]}]}
attestations: {mode: enforce, provenance: true}
rules: {mode: enforce, rules: [{name: owned, each: manifest, expression: 'manifest.config.config.Labels.team == "core"'}]}
secrets: {mode: enforce}
exec: [{mode: enforce, command: [/bin/true]}]
`

// attested is an index of an image that passes everyStage, and of its provenance as BuildKit writes
// it.
func attested(t *testing.T, base []byte) v1.ImageIndex {
	t.Helper()
	img := image(t, types.OCIManifestSchema1, v1.Config{User: "1000", Labels: map[string]string{"team": "core"}}, base, files(t, "app", "an application\n"))
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2","subject":[{"name":"app","digest":{"sha256":%q}}],"predicate":{"builder":{"id":"https://ci.example.com/1"}}}`,
		strings.TrimPrefix(digestOf(t, img), "sha256:"))
	provenance, err := mutate.Append(image(t, types.OCIManifestSchema1, v1.Config{}), mutate.Addendum{
		Layer: static.NewLayer(statement, "application/vnd.in-toto+json"), Annotations: map[string]string{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: provenance, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}, Annotations: map[string]string{
			"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digestOf(t, img)}}})
}

// TestArtifactsAndChecks has clients push what is no image while all rules about images are
// enforced: signatures, attestations, SBOMs, charts, modules, models and files.
func TestArtifactsAndChecks(t *testing.T) {
	base := files(t, "etc/base", "a base\n")
	s := newStack(t, stackOptions{configure: func(config map[string]any) {
		withChecks(t, config, map[string]string{"all": fmt.Sprintf(everyStage, digest.FromBytes(base))})
		config["checks"].([]any)[0].(map[string]any)["repositories"] = []string{"checked/*"}
	}})
	m := newMachine(t, s)
	write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
	ref, options := s.registry(t, "checked/app:1.0.0")
	index := attested(t, base)
	if err := remote.WriteIndex(ref, index, options...); err != nil {
		t.Fatalf("push the image itself: %v", err)
	}
	root, options := s.registry(t, "checked/app:2.0.0")
	if err := remote.Write(root, randomImage(t, types.OCIManifestSchema1, 1, 1000), options...); err == nil {
		t.Fatal("an image that breaks the rules was taken")
	}
	signed := at("checked/app@" + digestOf(t, index))
	t.Run("cosign", func(t *testing.T) { cosign(t, s, m, signed) })
	t.Run("notation", func(t *testing.T) { notation(t, m, signed) })
	t.Run("oras", func(t *testing.T) { orasArtifacts(t, m, signed) })
	t.Run("BuildKit", func(t *testing.T) { buildCache(t, m) })
	t.Run("Helm", func(t *testing.T) {
		c := helm(t, m, "", "")
		row(t, "Helm", c.version, "push a chart where images are checked", func(t *testing.T) { c.push(t, "checked/charts/app:1.0.0") })
	})
}

// cosign signs an image, and attaches an attestation and an SBOM to it, in all of its formats, with
// a key of its own and without a transparency log.
func cosign(t *testing.T, s *stack, m *machine, signed string) {
	path := needLarge(t, "cosign")
	version := versionNumber.FindString(m.run(t, path, "version"))
	keys, predicate, sbom := filepath.Join(m.dir, "cosign"), filepath.Join(m.dir, "predicate.json"), filepath.Join(m.dir, "sbom.json")
	write(t, predicate, []byte(`{"made":"by a test"}`))
	write(t, sbom, []byte(`{"spdxVersion":"SPDX-2.3"}`))
	env := []string{need(t, "env"), "SSL_CERT_FILE=/etc/dray/cert.pem", "COSIGN_PASSWORD=", "COSIGN_YES=true"}
	m.run(t, append(env, path, "generate-key-pair", "--output-key-prefix", keys)...)
	for _, f := range []struct{ format, variable, bundle, mode string }{
		{"as referrers", "COSIGN_EXPERIMENTAL=1", "false", "oci-1-1"},
		{"as bundles", "COSIGN_EXPERIMENTAL=0", "true", ""},
		{"as tags", "COSIGN_DOCKER_MEDIA_TYPES=0", "false", "legacy"},
		{"as tags, with types of Docker", "COSIGN_DOCKER_MEDIA_TYPES=1", "false", "legacy"},
	} {
		do := func(t *testing.T, args ...string) {
			t.Helper()
			m.run(t, slices.Concat(env, []string{f.variable, path}, args)...)
		}
		mode := []string{"--registry-referrers-mode", f.mode}
		if f.mode == "" {
			mode = nil
		}
		upload := []string{"--key", keys + ".key", "--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=" + f.bundle, signed}
		check := []string{"--key", keys + ".pub", "--insecure-ignore-tlog", "--new-bundle-format=" + f.bundle, signed}
		opAttach.row(t, "cosign", version, "sign a checked image, "+f.format, func(t *testing.T) {
			do(t, slices.Concat([]string{"sign"}, mode, upload)...)
			do(t, slices.Concat([]string{"verify", fmt.Sprintf("--experimental-oci11=%t", f.mode == "oci-1-1")}, check)...)
		})
		opAttach.row(t, "cosign", version, "attest a checked image, "+f.format, func(t *testing.T) {
			do(t, slices.Concat([]string{"attest", "--predicate", predicate, "--type", "custom"}, upload)...)
			do(t, slices.Concat([]string{"verify-attestation", "--type", "custom"}, check)...)
		})
		if f.mode != "" {
			opAttach.row(t, "cosign", version, "attach an SBOM to a checked image, "+f.format, func(t *testing.T) {
				do(t, slices.Concat([]string{"attach", "sbom", "--sbom", sbom}, mode, []string{signed})...)
			})
		}
	}
	s.ecr.quiet(t)
	for _, suffix := range []string{"sig", "att", "sbom"} {
		s.ecr.digest(t, "checked/app:"+strings.ReplaceAll(signed[strings.Index(signed, "sha256:"):], ":", "-")+"."+suffix)
	}
}

// notation signs an image with a key of its own, in both forms of signatures.
func notation(t *testing.T, m *machine, signed string) {
	do, version := trusting(t, m, "notation")
	do(t, "cert", "generate-test", "--default", "dray.example.com")
	for _, format := range []string{"jws", "cose"} {
		opAttach.row(t, "notation", version, "sign a checked image, "+format, func(t *testing.T) {
			do(t, "sign", "--signature-format", format, "--username", pusher, "--password", password, signed)
			if out := do(t, "list", "--username", pusher, "--password", password, signed); !strings.Contains(out, "application/vnd.cncf.notary.signature") {
				t.Errorf("listed:\n%s", out)
			}
		})
	}
}

// buildCache exports the cache of a build that pushes no image.
func buildCache(t *testing.T, m *machine) {
	b := startBuildKit(t, m)
	write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM scratch\nCOPY data /data\n"))
	write(t, filepath.Join(b.context, "data"), []byte("data\n"))
	row(t, "BuildKit", b.version, "export a build cache where images are checked", func(t *testing.T) {
		m.run(t, slices.Concat(b.client, []string{"build", "--frontend", "dockerfile.v0", "--progress", "plain", "--local", "context=" + b.context, "--local", "dockerfile=" + b.context,
			"--export-cache", "type=registry,mode=max,image-manifest=true,oci-mediatypes=true,ref=" + at("checked/cache:1.0.0")})...)
	})
}

// orasArtifacts pushes files, modules of WebAssembly and a model, and attaches a file to an image.
func orasArtifacts(t *testing.T, m *machine, signed string) {
	do, version := trusting(t, m, "oras")
	file := func(name, content string) string {
		write(t, filepath.Join(m.dir, name), []byte(content))
		return filepath.Join(m.dir, name)
	}
	note, module := file("note.txt", "a note\n"), file("app.wasm", "\x00asm\x01\x00\x00\x00")
	archive := file("files.tar", string(files(t, "note", "a note\n")))
	wasm := file("wasm.json", `{"architecture":"wasm","os":"wasip2","layerDigests":[]}`)
	like := file("image.json", `{"architecture":"wasm","os":"wasip1","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)
	for does, args := range map[string][]string{
		"push a file":                                 {"push", at("checked/files:1.0.0"), note + ":text/plain"},
		"push an archive":                             {"push", "--artifact-type", "application/vnd.example", at("checked/files:1.0.1"), archive + ":application/vnd.oci.image.layer.v1.tar"},
		"push a module of WebAssembly":                {"push", "--config", wasm + ":application/vnd.wasm.config.v0+json", at("checked/wasm:1.0.0"), module + ":application/wasm"},
		"push a module with an image's configuration": {"push", "--config", like + ":application/vnd.oci.image.config.v1+json", at("checked/wasm:1.0.1"), module + ":application/wasm"},
		"push a model with an image's configuration":  {"push", "--config", like + ":application/vnd.docker.container.image.v1+json", at("checked/model:1.0.0"), note + ":application/vnd.ollama.image.model"},
		"attach a file":                               {"attach", "--artifact-type", "application/vnd.example.sbom", signed, note},
	} {
		row(t, "oras", version, does+" where images are checked", func(t *testing.T) {
			do(t, append([]string{args[0], "--disable-path-validation"}, args[1:]...)...)
		})
	}
}
