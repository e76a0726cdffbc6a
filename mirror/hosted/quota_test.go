package hosted

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// When the quota is used up, what was not used for the longest time goes; a push under way never
// does.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		h := begin(t, t.TempDir(), Options{MaxBytes: 3*size + 50_000})
		for _, tag := range []string{"a", "b", "c"} {
			h.push("r", tag, size)
			time.Sleep(time.Hour)
		}
		if _, err := h.StatManifest(t.Context(), upstream.Repo{Name: "r"}, oci.Reference{Tag: "a"}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		h.push("other", "d", size)
		if got := h.tagged("r"); !slices.Equal(got, []string{"a", "c"}) || !h.has("other", "d") {
			t.Errorf("after a fourth: %v", got)
		}
		h.sound()
		// Blobs of pushes under way fill the quota: everything else goes, and the next one is refused.
		var err error
		for i := range 5 {
			if err = h.PutBlob(t.Context(), upstream.Repo{Name: "r"}, upstreamtest.Upload(upstreamtest.NewImage(t, fmt.Sprint(i), size).Layer)); err != nil {
				break
			}
		}
		if e := oci.AsError(err); !errors.Is(err, ErrFull) || e.Status != 403 || !strings.Contains(e.Message, "quota of own") {
			t.Errorf("beyond the quota: %v", err)
		}
		if h.contents.bytes() > h.opts.MaxBytes {
			t.Errorf("%d bytes are held, the quota is %d", h.contents.bytes(), h.opts.MaxBytes)
		}
		h.sound()
		time.Sleep(2 * time.Hour) // nobody finished them
		h.push("r", "e", size)
		h.sound()
		h.stop(true)
	})
}

func TestQuotaRefuses(t *testing.T) {
	h := begin(t, t.TempDir(), Options{MaxBytes: 100_000, Refuse: true})
	h.push("r", "a", 80_000)
	err := h.PutBlob(t.Context(), upstream.Repo{Name: "r"}, upstreamtest.Upload(upstreamtest.NewImage(t, "b", 80_000).Layer))
	if !errors.Is(err, ErrFull) || !h.has("r", "a") {
		t.Errorf("%v", err)
	}
	h.sound()
}

// A blob that can never fit evicts nothing.
func TestQuotaOfOneBlob(t *testing.T) {
	h := begin(t, t.TempDir(), Options{MaxBytes: 100_000})
	h.push("r", "a", 50_000)
	err := h.PutBlob(t.Context(), upstream.Repo{Name: "r"}, upstreamtest.Upload(upstreamtest.NewImage(t, "b", 150_000).Layer))
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "whole quota of own") || !h.has("r", "a") {
		t.Errorf("%v", err)
	}
	h.sound()
}

// One image in two repositories, or twice in one, gives room only when it goes from all places. So
// it does, as old as the place where it was used last: what gives room by itself and is older goes
// before.
func TestQuotaOfShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		h := begin(t, t.TempDir(), Options{MaxBytes: 2*size + 50_000})
		img := h.push("one", "a", size)
		img.Push(h, h.Store, "two", "a")
		h.manifest("two", "b", map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIManifest, "config": img.Manifest.Config, "layers": img.Manifest.Layers, "annotations": map[string]string{"x": "y"}})
		time.Sleep(2 * time.Hour)
		h.push("three", "c", size)
		time.Sleep(2 * time.Hour)
		if _, err := h.StatManifest(t.Context(), upstream.Repo{Name: "two"}, oci.Reference{Tag: "b"}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		h.push("three", "d", size)
		if got := h.tagged("one"); len(got) != 1 || !slices.Equal(h.tagged("two"), []string{"a", "b"}) || !slices.Equal(h.tagged("three"), []string{"d"}) {
			t.Errorf("beside something else: %v, %v, %v", got, h.tagged("two"), h.tagged("three"))
		}
		h.sound()
		time.Sleep(2 * time.Hour)
		if err := h.PutBlob(t.Context(), upstream.Repo{Name: "three"}, upstreamtest.Upload(upstreamtest.NewImage(t, "e", 2*size).Layer)); err != nil {
			t.Errorf("beside shared ones: %v", err)
		}
		if len(h.tagged("one"))+len(h.tagged("two"))+len(h.tagged("three")) != 0 {
			t.Error("they stayed")
		}
		h.sound()
		h.stop(true)
	})
}

// A manifest that two indexes name gives room only when both go. An index whose removal gives no
// room stays, and so does a manifest that an index needs and whose own tag is old.
func TestQuotaOfIndexes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		h := begin(t, t.TempDir(), Options{MaxBytes: 2*size + 50_000})
		shared := h.push("r", "part", size)
		time.Sleep(2 * time.Hour)
		h.index("r", "old", shared)
		time.Sleep(2 * time.Hour)
		h.push("r", "alone", size)
		time.Sleep(2 * time.Hour)
		h.manifest("r", "new", map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeOCIIndex, "manifests": []oci.Descriptor{shared.Manifest.Descriptor()}, "annotations": map[string]string{"x": "y"}})
		time.Sleep(2 * time.Hour)
		h.push("r", "next", size)
		if got := h.tagged("r"); !slices.Equal(got, []string{"new", "next", "old", "part"}) {
			t.Errorf("beside an image that gives room: %v", got)
		}
		h.sound()
		time.Sleep(2 * time.Hour)
		h.push("r", "last", size)
		if got := h.tagged("r"); !slices.Equal(got, []string{"last", "next"}) || h.has("r", shared.Manifest.Digest.String()) {
			t.Errorf("beside indexes that give room together: %v", got)
		}
		h.sound()
		h.stop(true)
	})
}

// An index keeps the manifests that it names when their own tags go.
func TestQuotaKeepsIndexesWhole(t *testing.T) {
	h := begin(t, t.TempDir(), Options{})
	part := h.push("r", "part", 100)
	h.index("r", "whole", part)
	if err := h.evict(t.Context(), &candidate{repo: "r", digest: part.Manifest.Digest}); err != nil {
		t.Fatal(err)
	}
	if got := h.tagged("r"); !slices.Equal(got, []string{"whole"}) || !h.has("r", part.Manifest.Digest.String()) {
		t.Errorf("the index names a manifest that is gone: %v", got)
	}
	h.sound()
}

// A quota full of what gives no room is told as fast for many images as for few: every one is
// looked at once.
func TestQuotaOfManyUseless(t *testing.T) {
	h := begin(t, t.TempDir(), Options{MaxBytes: 1})
	const n = 20_000
	st := (&state{}).clone()
	layer := oci.Descriptor{Digest: digest.FromString("layer"), Size: 1}
	h.contents.mu.Lock()
	h.contents.used = 1
	h.contents.holds[layer.Digest] = &hold{size: 1, uses: 1}
	r := h.contents.openLocked("r")
	for i := range n {
		d := digest.FromString(fmt.Sprint(i))
		st.manifests[d] = &manifest{pushed: time.Now().Add(-time.Duration(i) * time.Hour), refs: refs{blobs: []oci.Descriptor{layer}}}
		st.tags[fmt.Sprint("v", i)] = tag{Digest: d}
	}
	r.state = st
	r.members[layer.Digest] = &member{size: 1, needs: n, until: time.Now().Add(time.Hour)} // owed to a push
	h.contents.mu.Unlock()
	start := time.Now()
	if err := h.makeRoom(t.Context(), 1); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to look at %d manifests", took, n)
	}
}
