package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// signedImage is an image with what BuildKit and cosign add to it.
type signedImage struct {
	index              v1.ImageIndex // the image and its attestation, as BuildKit pushes them
	image, attestation v1.Image
	// signature and attestationSignature refer to the index and to the attestation, as signatures of
	// cosign do. Docker looks for the second one.
	signature, attestationSignature v1.Image
	// tagged is a signature as cosign makes it without OCI 1.1.
	tagged v1.Image
	// names are names for the digests of all parts.
	names map[string]string
}

const (
	inToto        = "application/vnd.in-toto+json"
	cosignConfig  = "application/vnd.dev.cosign.artifact.sig.v1+json"
	cosignPayload = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// newSignedImage makes a signed image. Its statements and signatures have the form that clients
// look at; no client here checks what they say.
func newSignedImage(t testing.TB) *signedImage {
	t.Helper()
	a := &signedImage{image: randomImage(t, types.OCIManifestSchema1, 1, 200_000), names: map[string]string{}}
	about := digestOf(t, a.image)
	a.attestation = artifact(t, types.OCIConfigJSON, about, predicateLayer(about, "https://slsa.dev/provenance/v0.2"), predicateLayer(about, "https://spdx.dev/Document"))
	a.index = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: a.image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: a.attestation, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about}}})
	a.signature, a.attestationSignature = signature(t, a.index), signature(t, a.attestation)
	a.tagged = artifact(t, types.OCIConfigJSON, about, payload(digestOf(t, a.index)))
	a.names[digestOf(t, a.index)] = "index"
	for name, img := range map[string]v1.Image{"image": a.image, "attestation": a.attestation, "signature": a.signature, "attestation's signature": a.attestationSignature} {
		a.name(t, name, img)
	}
	return a
}

// name records names for an image, its configuration and its layers.
func (a *signedImage) name(t testing.TB, name string, img v1.Image) {
	t.Helper()
	a.names[digestOf(t, img)] = name
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	a.names[manifest.Config.Digest.String()] = name + ": config"
	for i, layer := range manifest.Layers {
		a.names[layer.Digest.String()] = fmt.Sprintf("%s: layer %d", name, i+1)
	}
}

// push puts all parts into a registry, where the image has the given name.
func (a *signedImage) push(t testing.TB, d *double, ref string) {
	t.Helper()
	repo := ref[:strings.LastIndexByte(ref, ':')]
	d.pushIndex(t, ref, a.index)
	d.push(t, repo+"@"+digestOf(t, a.signature), a.signature)
	d.push(t, repo+"@"+digestOf(t, a.attestationSignature), a.attestationSignature)
	d.push(t, repo+":"+strings.Replace(digestOf(t, a.index), ":", "-", 1)+".sig", a.tagged)
}

// predicateLayer is a layer of an attestation: what the predicate says of an image.
func predicateLayer(about, predicate string) mutate.Addendum {
	_, hex, _ := strings.Cut(about, ":")
	text := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":%q,"subject":[{"name":"app","digest":{"sha256":%q}}],"predicate":{}}`, predicate, hex)
	return mutate.Addendum{Layer: static.NewLayer([]byte(text), inToto), MediaType: inToto, Annotations: map[string]string{"in-toto.io/predicate-type": predicate}}
}

// payload is the layer of a signature.
func payload(about string) mutate.Addendum {
	text := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, about)
	return mutate.Addendum{Layer: static.NewLayer([]byte(text), cosignPayload), MediaType: cosignPayload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": "MEUC"}}
}

// signature is a signature that refers to a manifest or index.
func signature(t testing.TB, subject partial.Describable) v1.Image {
	t.Helper()
	desc, err := partial.Descriptor(subject)
	if err != nil {
		t.Fatal(err)
	}
	img, ok := mutate.Subject(artifact(t, cosignConfig, desc.Digest.String(), payload(desc.Digest.String())), v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}).(v1.Image)
	if !ok {
		t.Fatal("the signature is no image any more")
	}
	return img
}

// artifact is an image that is none: its layers are no archives. The author makes its configuration
// differ from others.
func artifact(t testing.TB, config types.MediaType, author string, layers ...mutate.Addendum) v1.Image {
	t.Helper()
	file, err := empty.Image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Author = author
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), file)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.Append(mutate.ConfigMediaType(img, config), layers...); err != nil {
		t.Fatal(err)
	}
	return img
}

var requestLine = regexp.MustCompile(`msg=request .*method=(\S+) kind=(\S+) .*reference=(\S+)`)

// requests returns what clients have asked of dray since its log had a length, sorted, with the
// names of the parts of the image.
func (a *signedImage) requests(t testing.TB, s *stack, from int) (all []string) {
	t.Helper()
	time.Sleep(300 * time.Millisecond) // dray writes lines of pulls a moment later
	for line := range strings.Lines(string(s.log(t)[from:])) {
		if m := requestLine.FindStringSubmatch(line); m != nil && !strings.Contains(line, " status=401 ") {
			what := m[3]
			if name, ok := a.names[what]; ok {
				what = name
			}
			all = append(all, m[1]+" "+m[2]+" "+what)
		}
	}
	slices.Sort(all)
	return all
}

// log is what dray has logged so far.
func (s *stack) log(t testing.TB) []byte {
	t.Helper()
	return read(t, s.dray.logFile)
}

// docker29 starts a daemon of Docker 29 with the containerd image store, on a containerd of its
// own.
func docker29(t *testing.T, m *machine) *docker {
	t.Helper()
	daemon := needLarge(t, "dockerd")
	c := startContainerd(t, m, needBuilt)
	d := startDockerd(t, m, daemon, "--containerd", c.socket, "--storage-driver", "native", "--bridge=none", "--iptables=false", "--ip6tables=false")
	d.version = versionNumber.FindString(filepath.Base(daemon)) // a binary built from the Go module proxy does not know its version
	return d
}

// TestDocker29 pulls an image with provenance, SBOM and signatures. Docker 29 pulls the attestation
// with the image, and asks for the referrers of the attestation.
func TestDocker29(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.setup(t, "docker", "29")
	d := docker29(t, m)
	row(t, "Docker 29", d.version, "log in", func(t *testing.T) {
		d.run(t, "login", "--username", pusher, "--password", password, drayName+":5000")
	})
	for _, at := range []struct {
		ref, of string // for Docker, and at the registry
		d       *double
		dialect ecrtest.Dialect
		asks    []string
	}{
		{"app:1", "library/app:1", s.hub, ecrtest.Dialect{}, docker29Asks},
		{drayName + ":5000/team/app:1", "team/app:1", s.ecr, ecrtest.Dialect{}, docker29Asks},
		// This registry has no referrers call, and the push left no tag in its place.
		{"plain:1", "library/plain:1", s.hub, ecrtest.Dialect{ReferrersStatus: 404}, docker29Unsigned},
	} {
		a := newSignedImage(t)
		a.push(t, at.d, at.of)
		at.d.SetDialect(at.dialect)
		opPull.row(t, "Docker 29", d.version, "pull "+at.ref+" with attestations and signatures from "+at.d.host, func(t *testing.T) {
			asked, from := at.d.asked(), len(s.log(t))
			d.run(t, "pull", "--quiet", at.ref)
			if diff := cmp.Diff(at.asks, a.requests(t, s, from)); diff != "" {
				t.Errorf("requests to dray (- expected, + found):\n%s", diff)
			}
			// The fallback tag takes the place of the signature's manifest.
			for kind, want := range map[ecrtest.Kind]int64{ecrtest.KindManifestGet: 4, ecrtest.KindManifestHead: 0, ecrtest.KindReferrers: 1} {
				if got := asked.since(kind); got != want {
					t.Errorf("%d %s, want %d:\n%s", got, kind, want, asked.log())
				}
			}
		})
		row(t, "Docker 29", d.version, "pull "+at.ref+" again after the image was removed: nothing is asked of "+at.d.host, func(t *testing.T) {
			d.forget(t)
			asked := at.d.asked()
			d.run(t, "pull", "--quiet", at.ref)
			asked.none(t, append([]ecrtest.Kind{ecrtest.KindReferrers}, mirrored...)...)
		})
	}
	s.hub.SetDialect(ecrtest.Dialect{})
	row(t, "Docker 29", d.version, "pull while the registry does not answer about referrers", func(t *testing.T) {
		newSignedImage(t).push(t, s.hub, "library/slow:1")
		s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindReferrers}, Count: -1, Latency: time.Minute})
		d.forget(t)
		began := time.Now()
		d.run(t, "pull", "--quiet", "slow:1")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the pull took %v", took)
		}
	})
}

// docker29Asks are the requests of Docker 29 for the image, as in docs/clients.md. Clients built on
// containerd send some of them at the same time, so they are sorted.
var docker29Asks = []string{
	"GET blob attestation's signature: config",
	"GET blob attestation's signature: layer 1",
	"GET blob attestation: config",
	"GET blob attestation: layer 1",
	"GET blob attestation: layer 2",
	"GET blob image: config",
	"GET blob image: layer 1",
	"GET manifest attestation",
	"GET manifest attestation's signature",
	"GET manifest image",
	"GET manifest index",
	"GET referrers attestation",
	"HEAD manifest 1",
}

// docker29Unsigned are the requests for an image whose attestation has no signature.
var docker29Unsigned = slices.DeleteFunc(slices.Clone(docker29Asks), func(ask string) bool { return strings.Contains(ask, "signature") })

// TestContainerd2Attested pulls such an image with containerd 2, which asks for no referrers. It
// looks at the attestation, because that might be an image for this platform.
func TestContainerd2Attested(t *testing.T) {
	s := newStack(t, stackOptions{})
	m := newMachine(t, s)
	m.setup(t, "containerd", m.run(t, needBuilt(t, "containerd"), "--version"))
	c := startContainerd(t, m, needBuilt)
	for _, pull := range []struct {
		does, name string
		args       []string
		asks       []string
	}{
		{"pull an image with attestations and signatures", "app", nil, containerdAsks},
		{"pull such an image with its attestations", "all", []string{"--all-platforms"}, slices.Sorted(slices.Values(append(slices.Clone(containerdAsks),
			"GET blob attestation: layer 1", "GET blob attestation: layer 2")))},
	} {
		row(t, "containerd 2", c.version, pull.does, func(t *testing.T) {
			a := newSignedImage(t)
			a.push(t, s.hub, "library/"+pull.name+":1")
			from := len(s.log(t))
			c.pull(t, "docker.io/library/"+pull.name+":1", pull.args...)
			if diff := cmp.Diff(pull.asks, a.requests(t, s, from)); diff != "" {
				t.Errorf("requests to dray (- expected, + found):\n%s", diff)
			}
		})
	}
}

// containerdAsks are the requests of containerd 2 for the image.
var containerdAsks = []string{
	"GET blob attestation: config",
	"GET blob image: config",
	"GET blob image: layer 1",
	"GET manifest attestation",
	"GET manifest image",
	"GET manifest index",
	"HEAD manifest 1",
}
