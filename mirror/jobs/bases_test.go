package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"dray/cache/meta"
	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a mirror, with what several tests need.
type fixture struct{ *mirrortest.Fixture }

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return &fixture{mirrortest.New(t, mirrortest.Options{})}
}

// learning is a fixture that learns base images.
func learning(t *testing.T) (*fixture, *meta.BaseImages) {
	var bases *meta.BaseImages
	h := mirrortest.New(t, mirrortest.Options{Change: func(h *mirrortest.Fixture, o *mirror.Options) {
		bases = meta.NewBaseImages(h.Facts, meta.Options{})
		o.BaseImages = bases
	}})
	return &fixture{h}, bases
}

// layersOf are the layers that a configuration names.
func layersOf(t *testing.T, config []byte) []digest.Digest {
	t.Helper()
	var c v1.Image
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	return c.RootFS.DiffIDs
}

// runnable puts an image with a configuration into the upstream, under a tag where one is given.
func (h *fixture) runnable(repo, tag string, layers ...string) (*oci.Manifest, []byte) {
	h.Helper()
	return h.sized(repo, tag, 0, layers...)
}

// sized is runnable for an image whose configuration has at least size bytes.
func (h *fixture) sized(repo, tag string, size int, layers ...string) (*oci.Manifest, []byte) {
	h.Helper()
	var diffs, descs []string
	for _, l := range layers {
		diffs = append(diffs, fmt.Sprintf("%q", digest.FromString(l)))
		descs = append(descs, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromString(l), len(l)))
		h.Registry.HoldBlob(repo, []byte(l))
	}
	config := fmt.Appendf(nil, `{"os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffs, ","))
	config = append(config, bytes.Repeat([]byte(" "), max(0, size-len(config)))...)
	h.Registry.HoldBlob(repo, config)
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`,
		oci.MediaTypeOCIManifest, oci.MediaTypeOCIConfig, digest.FromBytes(config), len(config), strings.Join(descs, ",")))
	if err != nil {
		h.Fatal(err)
	}
	h.Registry.HoldManifest(repo, tag, m)
	return m, config
}

func (h *fixture) index(repo, tag string, children ...*oci.Manifest) *oci.Manifest {
	h.Helper()
	var descs []string
	for _, c := range children {
		descs = append(descs, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, c.MediaType, c.Digest, len(c.Raw)))
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeOCIIndex, strings.Join(descs, ",")))
	if err != nil {
		h.Fatal(err)
	}
	h.Registry.HoldManifest(repo, tag, m)
	return m
}

// An image gets the name that people use: the tag by which they ask, also for its index; and a name
// by digest only where there is no other.
func TestLearnsBases(t *testing.T) {
	const repo = "library/debian"
	ref := func(m *oci.Manifest) string { return m.Digest.String() }
	for name, c := range map[string]struct {
		asks func(h *fixture, index, child *oci.Manifest) []string // references, with HEAD before those that are not got
		want []string
	}{
		"by the tag of the index":          {func(_ *fixture, _, c *oci.Manifest) []string { return []string{"12", ref(c)} }, []string{"up.example/library/debian:12"}},
		"as containerd asks":               {func(_ *fixture, i, c *oci.Manifest) []string { return []string{"HEAD 12", ref(i), ref(c)} }, []string{"up.example/library/debian:12", "@index"}},
		"by its own tag":                   {func(_ *fixture, _, c *oci.Manifest) []string { return []string{"12-amd64"} }, []string{"up.example/library/debian:12-amd64"}},
		"by digest alone":                  {func(_ *fixture, _, c *oci.Manifest) []string { return []string{ref(c)} }, []string{"@child"}},
		"by a second tag, when it is held": {func(_ *fixture, _, c *oci.Manifest) []string { return []string{"12", ref(c), "bookworm"} }, []string{"up.example/library/debian:12", "up.example/library/debian:bookworm"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, bases := learning(t)
				child, config := h.runnable(repo, "12-amd64", "low", "high")
				other, _ := h.runnable(repo, "", "else")
				index := h.index(repo, "12", child, other)
				h.index(repo, "bookworm", child, other)
				for _, ask := range c.asks(h, index, child) {
					method, r, ok := strings.Cut(ask, " ")
					if !ok {
						method, r = "GET", ask
					}
					h.Want(200, method, "/v2/"+repo+"/manifests/"+r, nil)
				}
				time.Sleep(time.Second) // the client takes its time
				if known, err := bases.Named(t.Context(), layersOf(t, config)); err != nil || known != nil {
					t.Errorf("known are %v, %v, of a configuration that is not here", known, err)
				}
				h.Want(200, "GET", "/v2/"+repo+"/blobs/"+digest.FromBytes(config).String(), nil)
				asked := h.Registry.Count("blob") + h.Registry.Count("manifest")
				time.Sleep(10 * time.Minute)
				known, err := bases.Named(t.Context(), layersOf(t, config))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, k := range known {
					got = append(got, k.Name)
				}
				slices.Sort(got)
				var want []string
				for _, w := range c.want {
					switch w {
					case "@index":
						w = "up.example/library/debian@" + ref(index)
					case "@child":
						w = "up.example/library/debian@" + ref(child)
					}
					want = append(want, w)
				}
				if !slices.Equal(got, want) {
					t.Errorf("it is called %q, want %q", got, want)
				}
				if n := h.Registry.Count("blob") + h.Registry.Count("manifest"); n != asked {
					t.Errorf("learning asked the upstream %d times", n-asked)
				}
			})
		})
	}
}

// An image that the checks judge is recorded, however large its configuration is.
func TestLearnsFromLargeConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ size, want int }{
		"as large as the checks read": {pipeline.MaxConfigBytes, 1},
		"one byte more":               {pipeline.MaxConfigBytes + 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, bases := learning(t)
				_, config := h.sized("team/app", "v1", c.size, "layer")
				h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
				h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(config).String(), nil)
				time.Sleep(10 * time.Minute)
				if known, err := bases.Named(t.Context(), layersOf(t, config)); err != nil || len(known) != c.want {
					t.Errorf("known are %v, %v, want %d", known, err, c.want)
				}
			})
		})
	}
}

// A recorded image is not read again for a day. An image that could not be recorded after one
// pull is recorded after the next one.
func TestLearnsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, bases := learning(t)
		_, config := h.runnable("team/app", "v1", "layer")
		pull := func() { h.Want(200, "GET", "/v2/team/app/manifests/v1", nil) }
		known := func(want int) {
			t.Helper()
			time.Sleep(10 * time.Minute)
			if known, err := bases.Named(context.Background(), layersOf(t, config)); err != nil || len(known) != want {
				t.Errorf("known are %v, %v, want %d", known, err, want)
			}
		}
		pull()
		known(0) // nobody has asked for the configuration
		h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(config).String(), nil)
		pull()
		known(1)
		writes := h.Facts.Calls("put")
		for range 10 {
			pull()
		}
		time.Sleep(time.Minute)
		if n := h.Facts.Calls("put"); n != writes {
			t.Errorf("%d more writes", n-writes)
		}
		h.Facts.Fail(mirrortest.ErrBroken, 0) // and a store that fails costs nobody a pull
		time.Sleep(25 * time.Hour)
		pull()
		time.Sleep(time.Minute)
		h.Facts.Fail(nil, 0)
		pull()
		known(1)
	})
}
