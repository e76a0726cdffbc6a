package warming_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/mirror/mirrortest"
	"dray/mirror/warming"
	"dray/upstream"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a mirror before a registry in memory.
type fixture struct{ *mirrortest.Fixture }

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return &fixture{mirrortest.New(t, mirrortest.Options{})}
}

// indexed puts an index of images into the upstream: one layer for each entry of on, which is a
// platform in JSON or empty.
func (h *fixture) indexed(repo, tag string, on ...string) *oci.Manifest {
	h.Helper()
	var entries []string
	for i, p := range on {
		m := h.Hold(repo, "", layerAt(repo, i))
		if p != "" {
			p = `,"platform":` + p
		}
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, m.MediaType, m.Digest, len(m.Raw), p))
	}
	index, err := oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeOCIIndex, strings.Join(entries, ",")))
	if err != nil {
		h.Fatal(err)
	}
	h.Registry.HoldManifest(repo, tag, index)
	return index
}

func layerAt(repo string, i int) []byte { return []byte(strings.Repeat(fmt.Sprint(repo, i), 10)) }

// warm brings an image into the cache.
func (h *fixture) warm(repo, ref string, on ...string) (api.Warmth, error) {
	h.Helper()
	return h.warmBefore(h.Context(), repo, ref, on...)
}

func (h *fixture) warmBefore(ctx context.Context, repo, ref string, on ...string) (last api.Warmth, err error) {
	parsed, err := oci.ParseReference(ref)
	if err != nil {
		return last, err
	}
	for at, err := range h.Mirror.Warm().Warm(ctx, warming.Image{Name: "image", Upstream: "up", Repo: repo, Reference: parsed}, on) {
		if err != nil {
			return last, err
		}
		last = at
	}
	return last, nil
}

// wants fails the test if an error has another code, or does not contain a text.
func wants(t *testing.T, err error, code api.Code, text string) {
	t.Helper()
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != code || !strings.Contains(e.Message, text) {
		t.Errorf("%#v, want %s with %q", err, code, text)
	}
}

const (
	amd64   = `{"os":"linux","architecture":"amd64"}`
	arm64   = `{"os":"linux","architecture":"arm64"}`
	armv6   = `{"os":"linux","architecture":"arm","variant":"v6"}`
	armv7   = `{"os":"linux","architecture":"arm","variant":"v7"}`
	windows = `{"os":"windows","architecture":"amd64","os.version":"10.0.20348.1"}`
	unknown = `{"os":"unknown","architecture":"unknown"}`
)

// TestWarmPlatforms: of an index, what clients on the platforms pull is fetched, and nothing else.
func TestWarmPlatforms(t *testing.T) {
	all := []string{amd64, arm64, armv6, armv7, windows, unknown}
	for _, tc := range []struct {
		index []string
		on    []string
		want  []int // of the index
	}{
		{all, []string{"linux/amd64"}, []int{0}},
		{all, []string{"linux/arm64"}, []int{1}},
		{all, []string{"linux/arm64/v8"}, []int{1}},
		{all, []string{"linux/arm/v7"}, []int{3}},
		{all, []string{"linux/arm/v6"}, []int{2}},
		{all, []string{"linux/arm"}, []int{3}},
		{all[:3], []string{"linux/arm/v7"}, []int{2}},
		{all, []string{"windows/amd64"}, []int{4}},
		{all, []string{"linux/amd64", "linux/arm64"}, []int{0, 1}},
		{all, []string{"linux/amd64", "linux/x86_64"}, []int{0}},
		{all, nil, []int{0, 1, 2, 3, 4, 5}},
		{[]string{"", amd64}, []string{"linux/arm64"}, []int{0}},
		{[]string{"", amd64}, []string{"linux/amd64"}, []int{1}},
	} {
		t.Run(fmt.Sprint(len(tc.index), tc.on), func(t *testing.T) {
			h := newFixture(t)
			index := h.indexed("team/app", "v1", tc.index...)
			at, err := h.warm("team/app", "v1", tc.on...)
			if err != nil {
				t.Fatal(err)
			}
			want := api.Warmth{Name: "image", Digest: index.Digest, Parts: 1, Bytes: int64(len(index.Raw))}
			for i := range tc.index {
				child, layer := index.Manifests[i].Digest, layerAt("team/app", i)
				_, manifestHeld := h.Cache.Stat(child)
				_, layerHeld := h.Cache.Stat(digest.FromBytes(layer))
				if wanted := slices.Contains(tc.want, i); manifestHeld != wanted || layerHeld != wanted {
					t.Errorf("%s: manifest held %v, layer held %v, want %v", tc.index[i], manifestHeld, layerHeld, wanted)
				}
				if slices.Contains(tc.want, i) {
					want.Parts += 2
					want.Bytes += index.Manifests[i].Size + int64(len(layer))
					want.FetchedBytes += int64(len(layer))
				}
			}
			want.HeldParts, want.HeldBytes = want.Parts, want.Bytes
			if diff := cmp.Diff(want, at); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestWarmNoPlatform: an index without the platform is an error that lists what it has.
func TestWarmNoPlatform(t *testing.T) {
	h := newFixture(t)
	h.indexed("team/app", "v1", arm64, windows, unknown)
	_, err := h.warm("team/app", "v1", "linux/s390x")
	wants(t, err, api.CodeNotFound, "linux/s390x; it has linux/arm64, windows/amd64")
	if n := h.Registry.Count("blob"); n != 0 {
		t.Errorf("%d blobs fetched", n)
	}
}

// listing puts an index of manifests into the upstream. Its name distinguishes it from other
// indexes of the same manifests.
func (h *fixture) listing(repo, tag, name string, below ...*oci.Manifest) *oci.Manifest {
	h.Helper()
	var entries []string
	for _, m := range below {
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, m.MediaType, m.Digest, len(m.Raw)))
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s],"annotations":{"name":%q}}`,
		oci.MediaTypeOCIIndex, strings.Join(entries, ","), name))
	if err != nil {
		h.Fatal(err)
	}
	h.Registry.HoldManifest(repo, tag, m)
	return m
}

// TestWarmSharedIndexes: indexes that list the same indexes do not multiply the work.
func TestWarmSharedIndexes(t *testing.T) {
	h := newFixture(t)
	const wide, levels = 10, 3
	below := []*oci.Manifest{h.Hold("team/app", "", layerAt("app", 0))}
	for level := range levels {
		var all []*oci.Manifest
		for i := range wide {
			all = append(all, h.listing("team/app", "", fmt.Sprint(level, i), below...))
		}
		below = all
	}
	h.listing("team/app", "v1", "root", below...)
	at, err := h.warm("team/app", "v1")
	if want := 1 + levels*wide + 2; err != nil || at.Parts != want || at.HeldParts != want {
		t.Errorf("%+v, %v, want %d parts", at, err, want)
	}
	const entries = wide + (levels-1)*wide*wide + wide // of all indexes
	if n := h.Facts.Calls("get"); n > 4*entries {
		t.Errorf("%d facts were read about %d entries", n, entries)
	}
}

// TestWarmNested: indexes that are nested too deep are an error, also if they are listed at a
// higher level as well.
func TestWarmNested(t *testing.T) {
	h := newFixture(t)
	chain := []*oci.Manifest{h.Hold("team/app", "", layerAt("app", 0))}
	for i := range 4 {
		chain = append(chain, h.listing("team/app", "", fmt.Sprint(i), chain[i]))
	}
	h.listing("team/app", "fits", "root", chain[3])
	if at, err := h.warm("team/app", "fits"); err != nil || at.HeldParts != 6 {
		t.Errorf("%+v, %v", at, err)
	}
	h.listing("team/app", "deep", "root", chain[4])
	h.listing("team/app", "both", "root", chain[1], chain[4])
	for _, tag := range []string{"deep", "both"} {
		if _, err := h.warm("team/app", tag); err == nil || !strings.Contains(err.Error(), "nested more than 4 deep") {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// TestWarmThenPull: a client that pulls a warmed image waits for nothing from the registry, and
// warming again costs nothing while the tag is fresh.
func TestWarmThenPull(t *testing.T) {
	h := newFixture(t)
	index := h.indexed("team/app", "v1", amd64)
	if _, err := h.warm("team/app", "v1", "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	again, err := h.warm("team/app", "v1", "linux/amd64")
	if err != nil || again.FetchedBytes != 0 || again.HeldBytes != again.Bytes {
		t.Errorf("%+v %v", again, err)
	}
	if _, err := h.warm("team/app", index.Digest.String()); err != nil {
		t.Error(err)
	}
	manifests, blobs := h.Registry.Count("manifest"), h.Registry.Count("blob")
	if manifests != 2 || blobs != 1 {
		t.Errorf("%d manifests and %d blobs were asked for", manifests, blobs)
	}
	accept := strings.Join(oci.AnyManifest(), ", ")
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", accept)
	h.Want(200, "GET", "/v2/team/app/manifests/"+index.Manifests[0].Digest.String(), nil, "Accept", accept)
	h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromBytes(layerAt("team/app", 0)).String(), nil)
	if h.Registry.Count("manifest") != manifests || h.Registry.Count("blob") != blobs {
		t.Error("a client's pull asked the registry")
	}
}

// TestWarmAnotherRepository: bytes that are here through another repository are not fetched again.
func TestWarmAnotherRepository(t *testing.T) {
	h := newFixture(t)
	layer := layerAt("shared", 0)
	h.Hold("team/a", "v1", layer)
	if _, err := h.warm("team/a", "v1"); err != nil {
		t.Fatal(err)
	}
	h.Hold("team/b", "v1", layer)
	if at, err := h.warm("team/b", "v1"); err != nil || at.FetchedBytes != 0 || at.HeldParts != 2 {
		t.Errorf("%+v %v", at, err)
	}
}

// TestWarmNotFound: what the registry does not have is an error.
func TestWarmNotFound(t *testing.T) {
	h := newFixture(t)
	_, err := h.warm("team/app", "v1")
	wants(t, err, api.CodeNotFound, "")
	h.layered("team/app", "v2", 2)
	h.Registry.DropBlob("team/app", digest.FromString("v2-1"))
	_, err = h.warm("team/app", "v2")
	wants(t, err, api.CodeNotFound, digest.FromString("v2-1").String())
	for at, err := range h.Mirror.Warm().Warm(t.Context(), warming.Image{Upstream: "other", Repo: "a", Reference: oci.Reference{Tag: "v1"}}, nil) {
		wants(t, err, api.CodeNotFound, `"other" is not configured`)
		_ = at
	}
	_, err = h.warm("team/app", "v2", "a/b/c/d")
	wants(t, err, api.CodeInvalid, "a/b/c/d")
}

// TestWarmNotKept: an image that the disk does not take is not said to be held.
func TestWarmNotKept(t *testing.T) {
	h := newFixture(t)
	h.Hold("team/app", "v1", layerAt("large", 0))
	h.Break(disk.OpWrite)
	_, err := h.warm("team/app", "v1")
	wants(t, err, api.CodeUnavailable, "did not keep")
}

// layered puts an image with so many layers into the upstream.
func (h *fixture) layered(repo, tag string, layers int) {
	h.Helper()
	all := make([][]byte, layers)
	for i := range all {
		all[i] = fmt.Appendf(nil, "%s-%d", tag, i)
	}
	h.Hold(repo, tag, all...)
}

// down is a source that fails.
type down struct{ upstream.Source }

func (down) Manifest(context.Context, upstream.Repo, oci.Reference, []string) (*oci.Manifest, error) {
	return nil, oci.ErrUnavailable.With("the registry is down")
}

func (down) StatManifest(context.Context, upstream.Repo, oci.Reference, []string) (oci.Descriptor, error) {
	return oci.Descriptor{}, oci.ErrUnavailable.With("the registry is down")
}

// TestWarmOutage: while the registry does not say what a tag means, the image is not said to be the
// one that it has, although clients get the old one.
func TestWarmOutage(t *testing.T) {
	h := newFixture(t)
	h.Upstream.Tags.Fresh = time.Nanosecond
	m := h.Hold("team/app", "v1", layerAt("app", 0))
	if _, err := h.warm("team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	h.Upstream.Source = down{h.Registry}
	_, err := h.warm("team/app", "v1")
	wants(t, err, api.CodeUnavailable, "is down")
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", strings.Join(oci.AnyManifest(), ", "))
	if _, err := h.warm("team/app", m.Digest.String()); err != nil {
		t.Errorf("by digest: %v", err)
	}
}

// TestWarmBounded: however many images are warmed, a bounded number of blobs is fetched at a time.
// A client can pull meanwhile, and the work ends with its context.
func TestWarmBounded(t *testing.T) {
	h := newFixture(t)
	g := h.Gate()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	const images = 3
	for i := range images {
		h.layered("team/app", fmt.Sprint(i), 10)
		go func() {
			_, err := h.warmBefore(ctx, "team/app", fmt.Sprint(i))
			done <- err
		}()
	}
	h.Until(func() bool { return g.Waiting() == 8 })
	cancel()
	for range images {
		wants(t, <-done, api.CodeInternal, context.Canceled.Error())
	}
	g.Open()
	if most := g.Most(); most != 8 {
		t.Errorf("%d blobs were fetched at a time", most)
	}
	h.Want(200, "GET", "/v2/team/app/blobs/"+digest.FromString("2-9").String(), nil)
}
