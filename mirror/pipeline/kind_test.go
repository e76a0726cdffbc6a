package pipeline

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/oci"
)

// bzipped is an archive of one file "a" with "x" in it, compressed with bzip2.
var bzipped, _ = base64.StdEncoding.DecodeString("QlpoOTFBWSZTWdAWe8AAAGzbgMmAYABlgAAA4AAeQAgIIABUNJ6gANDQIooGhtQB9xYlEPcQRKjqrFb65oJAQXkZgTmUFdVL4XJC92zN6aIgHxdyRThQkNAWe8A=")

// layerOf is a layer as a manifest names it.
type layerOf struct {
	mediaType string
	content   []byte
}

// made is a manifest that some tool pushes, or somebody who wants to get round the checks.
type made struct {
	mediaType, config string
	content           string
	more              string
	given             map[string]string
	layers            []layerOf
}

// shelve puts the parts of a manifest on a shelf.
func (m made) shelve(t *testing.T, from shelf) *oci.Manifest {
	t.Helper()
	m.mediaType = cmp.Or(m.mediaType, oci.MediaTypeOCIManifest)
	describe := func(mediaType string, p []byte) oci.Descriptor {
		d := oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(p), Size: int64(len(p))}
		from.blobs[d.Digest] = p
		return d
	}
	layers := []oci.Descriptor{}
	for _, l := range m.layers {
		layers = append(layers, describe(l.mediaType, l.content))
	}
	config, err1 := json.Marshal(describe(m.config, []byte(m.content)))
	listed, err2 := json.Marshal(layers)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	man, err := oci.ParseManifest(m.mediaType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":%s%s}`, m.mediaType, config, listed, m.more))
	if err != nil {
		t.Fatal(err)
	}
	return man
}

// manifestOf is a manifest and what it is.
type manifestOf struct {
	made
	kind string
}

// manifests are those that clients push, and those that are made to get round the checks.
func manifests(t *testing.T) map[string]manifestOf {
	const (
		image   = oci.MediaTypeOCIConfig
		docker  = oci.MediaTypeDockerConfig
		layer   = "application/vnd.oci.image.layer.v1.tar"
		octets  = "application/octet-stream"
		intoto  = "application/vnd.in-toto+json"
		helm    = "application/vnd.cncf.helm.config.v1+json"
		subject = `,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}`
		typed   = `,"artifactType":"application/vnd.example"`
	)
	plain := archive(t, file{name: "a", text: "x"})
	root := fmt.Sprintf(`{"os":"linux","architecture":"amd64","config":{"User":"0"},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(plain))
	bare := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(plain))
	library := fmt.Sprintf(`{"os":"","architecture":"","created":"2026-01-01T00:00:00Z","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(plain))
	text := []byte(`{"made":"by a tool"}`)
	weights := append([]byte("GGUF"), bytes.Repeat([]byte{3, 1, 4}, 500)...)
	packed := gzipped(t, plain)
	one := func(mediaType string, content []byte) []layerOf { return []layerOf{{mediaType, content}} }
	attached := map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	erofs := append(make([]byte, 1024), "\xe2\xe1\xf5\xe0 the rest"...)
	all := map[string]manifestOf{
		"an image":                                      {made{config: image, content: root, layers: one(layer+"+gzip", packed)}, KindImage},
		"of Docker":                                     {made{mediaType: oci.MediaTypeDockerManifest, config: docker, content: root, layers: one("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)}, KindImage},
		"without layers":                                {made{config: image, content: root}, KindImage},
		"without layers, with a subject":                {made{config: image, content: root, more: subject}, KindImage},
		"with an empty layer":                           {made{config: image, content: root, layers: one(layer, nil)}, KindImage},
		"with a packed empty layer":                     {made{config: image, content: root, layers: one(octets, gzipped(t, nil))}, KindImage},
		"with zstd":                                     {made{config: image, content: root, layers: one(octets, zstded(t, plain))}, KindImage},
		"with bzip2":                                    {made{config: image, content: root, layers: one(octets, bzipped)}, KindImage},
		"with xz":                                       {made{config: image, content: root, layers: one(octets, []byte("\xfd7zXZ\x00 and more"))}, KindImage},
		"with a file system":                            {made{config: image, content: root, layers: one("application/vnd.erofs.layer.v1", erofs)}, KindImage},
		"encrypted":                                     {made{config: image, content: root, layers: one(layer+"+gzip+encrypted", weights)}, KindImage},
		"called in-toto":                                {made{config: image, content: root, layers: one(intoto, packed)}, KindImage},
		"called an attestation":                         {made{config: image, content: root, layers: one(intoto, packed), given: attached}, KindImage},
		"called a signature":                            {made{config: image, content: root, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", packed)}, KindImage},
		"called an artifact":                            {made{config: image, content: root, layers: one(octets, packed), more: typed}, KindImage},
		"called an artifact, of Docker":                 {made{mediaType: oci.MediaTypeDockerManifest, config: docker, content: root, layers: one(octets, packed), more: typed}, KindImage},
		"called a referrer":                             {made{config: image, content: root, layers: one(octets, packed), more: subject}, KindImage},
		"beside a signature":                            {made{config: image, content: root, layers: []layerOf{{intoto, text}, {layer, plain}}}, KindImage},
		"with an implied configuration":                 {made{config: octets, content: bare, layers: one(octets, packed)}, KindImage},
		"implied, and no operating system":              {made{config: "application/json", content: library, layers: one(octets, packed)}, KindImage},
		"called a chart":                                {made{config: helm, content: root, layers: one("application/vnd.cncf.helm.chart.content.v1.tar+gzip", packed)}, KindImage},
		"called a chart, without settings":              {made{config: helm, content: bare, layers: one(octets, packed)}, KindImage},
		"called a chart, without a list":                {made{mediaType: oci.MediaTypeDockerManifest, config: helm, content: `{"config":{"Cmd":["sh"]}}`, layers: one(octets, packed)}, KindImage},
		"called a model":                                {made{config: "application/vnd.cncf.model.config.v1+json", content: root, layers: one("application/vnd.cncf.model.weight.v1.tar", plain)}, KindImage},
		"called a build cache":                          {made{config: oci.MediaTypeBuildKitCache, content: root, layers: one(layer, plain)}, KindImage},
		"called empty":                                  {made{config: v1.MediaTypeEmptyJSON, content: root, more: typed, layers: one(octets, packed)}, KindImage},
		"cosign's signature":                            {made{config: image, content: library, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", text)}, KindArtifact},
		"cosign's attestation":                          {made{config: image, content: library, layers: one("application/vnd.dsse.envelope.v1+json", text)}, KindArtifact},
		"cosign's SBOM":                                 {made{config: image, content: library, layers: one("text/spdx+json", text)}, KindArtifact},
		"cosign's signature as a referrer":              {made{config: image, content: library, more: subject + typed, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", text)}, KindArtifact},
		"cosign's bundle":                               {made{config: v1.MediaTypeEmptyJSON, content: "{}", more: subject + typed, layers: one("application/vnd.dev.sigstore.bundle.v0.3+json", text)}, KindArtifact},
		"Podman's signature":                            {made{config: image, content: root, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", text)}, KindArtifact},
		"notation's signature":                          {made{config: "application/vnd.cncf.notary.signature", content: "{}", more: subject, layers: one("application/jose+json", text)}, KindArtifact},
		"BuildKit's attestation":                        {made{config: image, content: bare, layers: one(intoto, text), given: attached}, KindAttestation},
		"BuildKit's, before its index":                  {made{config: image, content: bare, layers: one(intoto, text)}, KindAttestation},
		"BuildKit's, as an artifact":                    {made{config: v1.MediaTypeEmptyJSON, content: "{}", more: subject + typed, layers: one(intoto, text), given: attached}, KindAttestation},
		"BuildKit's build cache":                        {made{config: oci.MediaTypeBuildKitCache, content: `{"layers":[{"blob":"sha256:00","parent":-1}],"records":[]}`, layers: one(layer+"+gzip", packed)}, KindArtifact},
		"a chart":                                       {made{config: helm, content: `{"name":"app","version":"1.0.0","apiVersion":"v2","type":"application"}`, layers: one("application/vnd.cncf.helm.chart.content.v1.tar+gzip", packed)}, KindArtifact},
		"files of ORAS":                                 {made{config: v1.MediaTypeEmptyJSON, content: "{}", more: typed, layers: []layerOf{{layer + "+gzip", packed}, {"text/plain", text}}}, KindArtifact},
		"files of old ORAS":                             {made{config: "application/vnd.unknown.config.v1+json", content: "{}", layers: one(layer+"+gzip", packed)}, KindArtifact},
		"manifests of Flux":                             {made{config: "application/vnd.cncf.flux.config.v1+json", content: library, layers: one("application/vnd.cncf.flux.content.v1.tar+gzip", packed)}, KindArtifact},
		"a model of Ollama":                             {made{mediaType: oci.MediaTypeDockerManifest, config: docker, content: bare, layers: []layerOf{{"application/vnd.ollama.image.model", weights}, {"application/vnd.ollama.image.license", text}}}, KindArtifact},
		"a model of Docker":                             {made{config: "application/vnd.docker.ai.model.config.v0.1+json", content: `{"config":{"format":"gguf"},"descriptor":{},"rootfs":{"type":"rootfs","diff_ids":["sha256:00"]}}`, layers: one("application/vnd.docker.ai.gguf.v3", weights)}, KindArtifact},
		"a model of Docker with an archive":             {made{config: "application/vnd.docker.ai.model.config.v0.1+json", content: `{"config":{"format":"safetensors"},"descriptor":{},"rootfs":{"type":"rootfs","diff_ids":["sha256:00","sha256:01"]}}`, layers: []layerOf{{"application/vnd.docker.ai.safetensors", weights}, {"application/vnd.docker.ai.vllm.config.tar", plain}}}, KindArtifact},
		"a model kit":                                   {made{config: "application/vnd.kitops.modelkit.config.v1+json", content: `{"manifestVersion":"1.0.0","package":{"name":"m"}}`, layers: one("application/vnd.kitops.modelkit.model.v1.tar+gzip", packed)}, KindArtifact},
		"a model pack":                                  {made{config: "application/vnd.cncf.model.config.v1+json", content: `{"descriptor":{"name":"m"},"modelfs":{"type":"layers","diffIds":["sha256:00"]},"config":{"architecture":"transformer","format":"safetensors"}}`, layers: one("application/vnd.cncf.model.weight.v1.tar", plain)}, KindArtifact},
		"a module of WebAssembly":                       {made{config: "application/vnd.wasm.config.v0+json", content: `{"architecture":"wasm","os":"wasip2","layerDigests":["sha256:00"]}`, layers: one("application/wasm", append([]byte("\x00asm"), weights...))}, KindArtifact},
		"an index of SOCI":                              {made{config: "application/vnd.amazon.soci.index.v1+json", content: "{}", more: subject, layers: one(octets, weights)}, KindArtifact},
		"an index of SOCI 2":                            {made{config: "application/vnd.amazon.soci.index.v2+json", content: "{}", layers: one(octets, weights)}, KindArtifact},
		"a configuration that is no JSON":               {made{config: "text/plain", content: "text", layers: one(octets, packed)}, KindArtifact},
		"a module of WebAssembly, as runwasi pushes it": {made{config: image, content: `{"architecture":"wasm","os":"wasip1","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}`, layers: one("application/wasm", append([]byte("\x00asm"), weights...))}, KindArtifact},
		"a module of WebAssembly of old tools":          {made{config: "application/vnd.wasm.config.v1+json", content: "{}", layers: one("application/vnd.wasm.content.layer.v1+wasm", append([]byte("\x00asm"), weights...))}, KindArtifact},
		"cosign's signature with types of Docker":       {made{mediaType: oci.MediaTypeDockerManifest, config: docker, content: library, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", text)}, KindArtifact},
		"cosign's SBOM as a referrer":                   {made{config: image, content: library, more: subject + typed, layers: one("text/spdx+json", text)}, KindArtifact},
		"cosign's signature with a packed payload":      {made{config: image, content: library, layers: one("application/vnd.dev.cosign.simplesigning.v1+json", gzipped(t, text))}, KindArtifact},
		"a model kit with the configuration of a pack":  {made{config: "application/vnd.cncf.model.config.v1+json", content: `{"descriptor":{"name":"m"},"modelfs":{"type":"layers","diffIds":["sha256:00"]},"config":{"paramSize":"8b"}}`, layers: one("application/vnd.cncf.model.weight.v1.tar+gzip", packed)}, KindArtifact},
		"a model of Ollama with an operating system":    {made{mediaType: oci.MediaTypeDockerManifest, config: docker, content: `{"model_format":"gguf","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:00"]}}`, layers: one("application/vnd.ollama.image.model", weights)}, KindArtifact},
		"a package of a database":                       {made{config: "application/vnd.aquasec.trivy.config.v1+json", content: "{}", layers: one("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", packed)}, KindArtifact},
		"a feature of a development container":          {made{config: "application/vnd.devcontainers", content: "{}", layers: one("application/vnd.devcontainers.layer.v1+tar", plain)}, KindArtifact},
		"a package with an architecture":                {made{config: "application/vnd.zarf.config.v1+json", content: `{"architecture":"amd64","ociVersion":"1.1.0","annotations":{}}`, layers: one("application/vnd.zarf.layer.v1.blob", plain)}, KindArtifact},
		"an index of SOCI 2 in an index":                {made{config: "application/vnd.amazon.soci.index.v2+json", content: "{}", layers: one(octets, weights), given: map[string]string{"com.amazon.soci.image-manifest-digest": "sha256:00"}}, KindArtifact},
	}
	// Whatever the layers of an image are called, in whatever they are packed, and whatever the
	// manifest says about itself, it is an image.
	for packing, content := range map[string][]byte{
		"tar": plain, "gzip": packed, "gzip in parts": append(gzipped(t, plain[:700]), gzipped(t, plain[700:])...), "zstd": zstded(t, plain),
		"zstd behind a frame that is skipped": append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00xyz"), zstded(t, plain)...), "bzip2": bzipped,
		"xz": []byte("\xfd7zXZ\x00 and more"), "lzip": []byte("LZIP\x01 and more"), "7z": []byte("7z\xbc\xaf\x27\x1c and more"), "EROFS": erofs,
		"nothing": nil, "gzip of nothing": gzipped(t, nil), "zstd of nothing": zstded(t, make([]byte, 1024)),
	} {
		for _, mediaType := range []string{layer, octets, intoto, "application/vnd.docker.image.rootfs.diff", "application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.ollama.image.model", "application/wasm", "text/plain"} {
			for form, m := range map[string]made{
				"plain": {config: image}, "typed": {config: image, more: typed}, "a referrer": {config: image, more: subject}, "an attestation": {config: image, given: attached},
				"of Docker": {mediaType: oci.MediaTypeDockerManifest, config: docker, more: typed}, "with octets": {config: octets}, "with JSON": {config: "application/json", more: subject},
				"with an empty configuration": {config: v1.MediaTypeEmptyJSON},
			} {
				m.content, m.layers = root, one(mediaType, content)
				all[fmt.Sprintf("disguised: %s, %s, %s", mediaType, packing, form)] = manifestOf{m, KindImage}
			}
		}
	}
	return all
}

// EachManifest calls check for each manifest of the table, with what to push and what it is. If the
// manifest has annotations in an index, the index is pushed.
func EachManifest(t *testing.T, check func(t *testing.T, pushed *oci.Manifest, from Contents, kind string)) {
	for name, m := range manifests(t) {
		t.Run(name, func(t *testing.T) {
			from := shelf{blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]*oci.Manifest{}}
			man := m.shelve(t, from)
			if m.given != nil {
				from.manifests[man.Digest] = man
				given, err := json.Marshal(m.given)
				if err != nil {
					t.Fatal(err)
				}
				if man, err = oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":%s}]}`,
					man.MediaType, man.Digest, len(man.Raw), given)); err != nil {
					t.Fatal(err)
				}
			}
			check(t, man, from, m.kind)
		})
	}
}

// Contents decide what a manifest is: what a runtime would run is an image, whatever it is called,
// and what tools push with the configuration of an image, but without its layers, is none.
func TestWhatRunsIsAnImage(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	EachManifest(t, func(t *testing.T, pushed *oci.Manifest, from Contents, want string) {
		kind := func(from Contents) string {
			t.Helper()
			img, err := p.View(t.Context(), Subject{Manifest: pushed}, from)
			if err != nil {
				t.Fatal(err)
			}
			m := img.Manifests[len(img.Manifests)-1]
			if m.Kind == KindImage && strings.Contains(string(m.Config.Raw), `"User"`) && m.Config.Config.User != "0" {
				t.Error("its configuration was not read")
			}
			return m.Kind
		}
		if got := kind(scanning{from.(shelf), p}); got != want {
			t.Errorf("it is an %s, want %s", got, want)
		}
		if got := kind(from); want == KindImage && got != KindImage {
			t.Errorf("with layers that nobody has looked at, it is an %s", got)
		}
	})
}

// A finding in a file that is a layer by itself names the file.
func TestFindingsNameWhatIsNoArchive(t *testing.T) {
	p, err := New(Options{Steps: []Step{{Stage: notingEach{&noting{name: "notes", found: []Finding{{Rule: "bad", What: "something"}}}}}}, Waivers: []Waiver{{Path: "test.txt", Stage: "notes", Reason: "a test"}}})
	if err != nil {
		t.Fatal(err)
	}
	for title, want := range map[string]string{"key.txt": "key.txt", "a\x1bb": "a?b", "test.txt": "", "packed.xz": "packed.xz", "packed.7z": "packed.7z"} {
		from := scanning{shelf{blobs: map[digest.Digest][]byte{}}, p}
		content := []byte(map[string]string{"packed.xz": "\xfd7zXZ\x00", "packed.7z": "7z\xbc\xaf\x27\x1c"}[title] + "content of " + title)
		from.blobs[digest.FromBytes(content)] = content
		man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":"text/plain","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.title":%q}}]}`,
			digest.FromBytes(content), len(content), strings.ReplaceAll(title, "\x1b", "\n")))
		if err != nil {
			t.Fatal(err)
		}
		want = strings.ReplaceAll(want, "?", " ")
		r, err := p.Judge(t.Context(), Subject{Manifest: man}, from)
		if err != nil || len(r.Findings) != 1 || r.Pass != (want == "") || want != "" && r.Findings[0].Where.Path != want {
			t.Errorf("%q: %+v, %v", title, r, err)
		}
	}
}

// A layer of an image that stages cannot look into is a finding, or an unknown of each stage that
// looks into layers. Of an artifact, it is neither.
func TestClosedLayersOfImages(t *testing.T) {
	weights := append([]byte("GGUF"), bytes.Repeat([]byte{3, 1, 4}, 500)...)
	plain := archive(t, file{name: "a", text: "x"})
	const layer = "application/vnd.oci.image.layer.v1.tar"
	for _, tc := range []struct {
		layer layerOf
		mode  Mode
		waive string
		want  string
	}{
		{layerOf{layer + "+gzip+encrypted", weights}, Enforce, "", "archive/encrypted"},
		{layerOf{layer + "+gzip+encrypted", weights}, Enforce, "encrypted", ""},
		{layerOf{layer + "+gzip+encrypted", weights}, Warn, "", "notes/unknown"},
		{layerOf{"application/x", []byte("\xfd7zXZ\x00 and more")}, Enforce, "", "archive/format"},
		{layerOf{"application/x", []byte("LZIP\x01 and more")}, Warn, "", "notes/unknown"},
		{layerOf{"application/x", weights}, Enforce, "", "archive/unreadable"},
		{layerOf{"application/x", plain}, Enforce, "", ""},
	} {
		p, err := New(Options{ArchiveMode: tc.mode, Steps: []Step{{Stage: notingEach{&noting{name: "notes"}}}}, Waivers: []Waiver{{Stage: "archive", Rule: cmp.Or(tc.waive, "none"), Reason: "agreed"}}})
		if err != nil {
			t.Fatal(err)
		}
		from := scanning{shelf{blobs: map[digest.Digest][]byte{}}, p}
		for config, want := range map[string]string{oci.MediaTypeOCIConfig: tc.want, "application/vnd.example": ""} {
			m := made{mediaType: oci.MediaTypeOCIManifest, config: config, content: "{}", layers: []layerOf{{layer, plain}, tc.layer}}
			r, err := p.Judge(t.Context(), Subject{Manifest: m.shelve(t, from.shelf)}, from)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(r.Broken(), " "); got != want {
				t.Errorf("%s in a manifest with %s, %s: %q, want %q", tc.layer.mediaType, config, tc.mode, got, want)
			}
		}
	}
}
