package hosted

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// A tag goes when it was neither pushed nor pulled for as long as its rule says, and what only it
// needed goes when nobody used it for as long as untagged manifests stay.
func TestUnusedTagsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{
			Unused: 240 * time.Hour, Untagged: 24 * time.Hour,
			Rules: []Rule{{Repositories: []string{"team/*"}, Tags: []string{"pr-*", "tmp"}, Unused: 48 * time.Hour}, {Tags: []string{"keep"}}},
		})
		old, pulled := h.push("team/app", "pr-1", 1000), h.push("team/app", "pr-2", 1001)
		h.push("team/app", "main", 1002)
		h.push("team/app", "keep", 1003)
		h.push("other", "pr-1", 1004)
		time.Sleep(47 * time.Hour)
		if _, err := h.StatManifest(t.Context(), upstream.Repo{Name: "team/app"}, oci.Reference{Tag: "pr-2"}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if got := h.tagged("team/app"); !slices.Equal(got, []string{"keep", "main", "pr-2"}) || !h.has("other", "pr-1") {
			t.Errorf("after 49 h: %v", got)
		}
		if h.has("team/app", old.Manifest.Digest.String()) {
			t.Error("an old manifest without a tag is there")
		}
		if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "team/app"}, digest.FromBytes(old.Layer)); err == nil {
			t.Error("its layer is there")
		}
		if _, err := h.StatBlob(t.Context(), upstream.Repo{Name: "team/app"}, digest.FromBytes(pulled.Layer)); err != nil {
			t.Error(err)
		}
		h.sound()
		time.Sleep(200 * time.Hour)
		h.prune(t.Context(), time.Now())
		if got := h.tagged("team/app"); !slices.Equal(got, []string{"keep"}) || h.contents.lookup("other") != nil {
			t.Errorf("after 249 h: %v", got)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "hosted/other")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory of an empty repository: %v", err)
		}
		h.sound()
		h.stop(true)
	})
}

// Only the newest tags of a rule are kept, of each branch where a group says so.
func TestNewestTagsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Rules: []Rule{{Tags: []string{"b-*"}, Keep: 2, Group: "-"}, {Tags: []string{"v*"}, Keep: 1}}})
		for _, tag := range []string{"b-main-1", "b-main-2", "v1", "b-fix-1", "b-main-3", "latest", "v2"} {
			h.push("r", tag, 100)
			time.Sleep(time.Second)
		}
		h.prune(t.Context(), time.Now())
		if got, want := h.tagged("r"), []string{"b-fix-1", "b-main-2", "b-main-3", "latest", "v2"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		// A tag that is pushed again is new.
		h.push("r", "b-main-2", 100)
		time.Sleep(time.Second)
		h.push("r", "b-main-4", 100)
		h.prune(t.Context(), time.Now())
		if got, want := h.tagged("r"), []string{"b-fix-1", "b-main-2", "b-main-4", "latest", "v2"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		h.sound()
		h.stop(true)
	})
}

// The manifests of an index and its referrers stay and are dropped with it. A manifest that was
// pushed for a later index stays.
func TestFamiliesStayTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Unused: 10 * time.Hour, Untagged: 5 * time.Hour})
		one, two := upstreamtest.NewImage(t, "one", 100), upstreamtest.NewImage(t, "two", 100)
		one.Push(t, h, "r", "child")
		two.Push(t, h, "r", "child")
		index := h.index("r", "all", one, two)
		sig := h.referrer("r", "application/sig", index.Descriptor())
		family := []*oci.Manifest{one.Manifest, two.Manifest, index, sig}
		there := func() (n int) {
			for _, m := range family {
				if h.has("r", m.Digest.String()) {
					n++
				}
			}
			return n
		}
		if err := h.DeleteManifest(t.Context(), upstream.Repo{Name: "r"}, oci.Reference{Tag: "child"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Hour)
		h.prune(t.Context(), time.Now())
		if there() != 4 {
			t.Errorf("%d of 4 are there, with the tag", there())
		}
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if there() != 0 || len(h.tagged("r")) != 0 {
			t.Errorf("%d of 4 are there, without the tag", there())
		}
		h.sound()
		h.stop(true)
	})
}

// Uses survive a stop in order, so that nothing looks older than it is.
func TestUsesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begin(t, t.TempDir(), Options{Unused: 10 * time.Hour, Untagged: time.Hour})
		h.push("r", "v1", 100)
		time.Sleep(9 * time.Hour)
		if _, err := h.Manifest(t.Context(), upstream.Repo{Name: "r"}, oci.Reference{Tag: "v1"}, nil); err != nil {
			t.Fatal(err)
		}
		h = h.again(false)
		time.Sleep(2 * time.Hour)
		h.prune(t.Context(), time.Now())
		if !h.has("r", "v1") {
			t.Error("a tag that was used two hours ago is gone")
		}
		h.stop(true)
	})
}

// Content that was pushed and used while the clock was ahead is neither dropped at once nor kept
// until that time.
func TestClockAhead(t *testing.T) {
	dir := t.TempDir()
	o := Options{Unused: 48 * time.Hour, Untagged: 24 * time.Hour}
	var name string
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(70 * 365 * 24 * time.Hour) // from the year 2000 on
		h := begin(t, dir, o)
		h.push("team/app", "main", 1000)
		h.stop(false)
		name = filepath.Join(h.dir, "hosted/team/app/_repository.json")
	})
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		h := begin(t, dir, o)
		h.prune(t.Context(), time.Now())
		if !h.has("team/app", "main") {
			t.Fatal("it went at once")
		}
		for _, m := range h.contents.stateOf(h.contents.lookup("team/app")).manifests {
			m.used.Store(time.Now().Add(1000 * time.Hour).Unix()) // the clock was set back just now
		}
		h.prune(t.Context(), time.Now())
		time.Sleep(49 * time.Hour)
		h.prune(t.Context(), time.Now())
		if h.has("team/app", "main") {
			t.Error("it is still here")
		}
		h.stop(true)
	})
}
