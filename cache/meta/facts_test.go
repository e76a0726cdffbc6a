package meta_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

var (
	one = digest.FromString("one")
	two = digest.FromString("two")
)

func latest(accept string) meta.TagKey {
	return meta.TagKey{Upstream: "ecr", Repo: "team/app", Tag: "latest", Accept: accept}
}

func wantNotFound(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, meta.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
}

// set asks about a tag and records the answer at once.
func set(t *testing.T, tags *meta.Tags, k meta.TagKey, f meta.TagFact, keep time.Duration) error {
	_, q, _ := tags.Ask(t.Context(), k)
	_, err := tags.Set(t.Context(), q, f, keep)
	return err
}

// pushed records what a push has made of a tag.
func pushed(t *testing.T, tags *meta.Tags, k meta.TagKey, f meta.TagFact) error {
	_, q, _ := tags.Ask(t.Context(), k)
	return tags.Pushed(t.Context(), q, f)
}

func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		links := meta.NewVisibility(metatest.NewMemory(), meta.Options{TTL: time.Hour})
		blob := meta.LinkFact{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 9, Kind: meta.KindBlob}
		manifest := meta.LinkFact{MediaType: manifestType, Size: -1, Kind: meta.KindManifest}
		err := links.Add(t.Context(), "ecr", "team/app", meta.Link{Digest: one, LinkFact: manifest}, meta.Link{Digest: two, LinkFact: blob})
		if err != nil {
			t.Fatal(err)
		}
		for d, want := range map[digest.Digest]meta.LinkFact{one: manifest, two: blob} {
			if got, err := links.Get(t.Context(), "ecr", "team/app", d); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
		// Each repository has its own visibility.
		for _, repo := range []string{"team", "team/app2", "team/ap", "other"} {
			_, err := links.Get(t.Context(), "ecr", repo, one)
			wantNotFound(t, err)
		}
		_, err = links.Get(t.Context(), "hub", "team/app", one)
		wantNotFound(t, err)

		if err := links.Forget(t.Context(), "ecr", "team/app", one); err != nil {
			t.Fatal(err)
		}
		_, err = links.Get(t.Context(), "ecr", "team/app", one)
		wantNotFound(t, err)

		time.Sleep(50 * time.Minute)
		if err := links.Add(t.Context(), "ecr", "team/app", meta.Link{Digest: two, LinkFact: blob}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		if _, err := links.Get(t.Context(), "ecr", "team/app", two); err != nil {
			t.Errorf("adding again did not prolong: %v", err)
		}
		time.Sleep(11 * time.Minute)
		_, err = links.Get(t.Context(), "ecr", "team/app", two)
		wantNotFound(t, err)
	})
}

func TestLinksAll(t *testing.T) {
	store := metatest.NewMemory()
	links := meta.NewVisibility(store, meta.Options{})
	manifest := meta.LinkFact{MediaType: "m", Size: 7, Kind: meta.KindManifest}
	blob := meta.LinkFact{Size: -1, Kind: meta.KindBlob}
	for _, err := range []error{
		links.Add(t.Context(), "ecr", "team/app", meta.Link{Digest: one, LinkFact: manifest}, meta.Link{Digest: two, LinkFact: blob}),
		links.Add(t.Context(), "ecr", "", meta.Link{Digest: one, LinkFact: manifest}),
		links.Add(t.Context(), "ecr2", "x", meta.Link{Digest: two, LinkFact: blob}),
		store.Put(t.Context(), "v1/link/ecr/broken/"+string(one), []byte("{"), 0),
		store.Put(t.Context(), "v1/link/ecr/short", []byte("{}"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list := func(upstream string) map[string]meta.LinkFact {
		found := map[string]meta.LinkFact{}
		for l, err := range links.All(t.Context(), upstream) {
			if err != nil {
				t.Fatal(err)
			}
			found[l.Upstream+"/"+l.Repo+"@"+l.Digest.String()] = l.LinkFact
		}
		return found
	}
	want := map[string]meta.LinkFact{"ecr/team/app@" + string(one): manifest, "ecr/team/app@" + string(two): blob, "ecr/@" + string(one): manifest}
	if diff := cmp.Diff(want, list("ecr")); diff != "" {
		t.Error(diff)
	}
	want["ecr2/x@"+string(two)] = blob
	if diff := cmp.Diff(want, list("")); diff != "" {
		t.Error(diff)
	}
}

func TestLinksRefuseNonsense(t *testing.T) {
	store := metatest.NewMemory()
	links := meta.NewVisibility(store, meta.Options{})
	good := meta.Link{Digest: one, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}
	for _, bad := range []meta.Link{
		{Digest: "sha256:short", LinkFact: meta.LinkFact{Kind: meta.KindBlob}},
		{Digest: two},
	} {
		if err := links.Add(t.Context(), "ecr", "app", good, bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if got := metatest.Listing(t, store, ""); len(got) != 0 {
		t.Errorf("half a batch was written: %v", got)
	}
}

func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := meta.NewPresence(metatest.NewMemory(), meta.PresenceOptions{})
		now := time.Unix(time.Now().Unix(), 0)
		before := now.Add(-time.Hour)
		three := digest.FromString("three")
		err := known.Add(t.Context(), "ecr", "app",
			meta.Holding{Digest: one, PresenceFact: meta.PresenceFact{Kind: meta.KindManifest, Size: 3}},
			meta.Holding{Digest: two, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob, Size: 5, Referenced: true, Confirmed: before}},
			meta.Holding{Digest: three, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob, Size: 7}})
		if err != nil {
			t.Fatal(err)
		}
		want := map[digest.Digest]meta.PresenceFact{
			one:   {Kind: meta.KindManifest, Size: 3, Referenced: true, Confirmed: now},
			two:   {Kind: meta.KindBlob, Size: 5, Referenced: true, Confirmed: before},
			three: {Kind: meta.KindBlob, Size: 7, Confirmed: now},
		}
		for d, f := range want {
			if got, err := known.Get(t.Context(), "ecr", "app", d); err != nil || got != f {
				t.Errorf("got %+v, %v; want %+v", got, err, f)
			}
			_, err := known.Get(t.Context(), "ecr", "app2", d)
			wantNotFound(t, err)
		}
		if repo, err := known.Home(t.Context(), "ecr", two); err != nil || repo != "app" {
			t.Errorf("a home of the referenced layer: %q, %v", repo, err)
		}
		for _, d := range []digest.Digest{one, three} { // a manifest, and a layer that nothing references
			_, err := known.Home(t.Context(), "ecr", d)
			wantNotFound(t, err)
		}
		_, err = known.Home(t.Context(), "other", two)
		wantNotFound(t, err)
		if err := known.Forget(t.Context(), "ecr", "another", two); err != nil {
			t.Fatal(err)
		}
		if _, err := known.Home(t.Context(), "ecr", two); err != nil {
			t.Errorf("forgotten with another repository: %v", err)
		}
		time.Sleep(time.Hour) // a layer nothing references is not trusted for long
		_, err = known.Get(t.Context(), "ecr", "app", three)
		wantNotFound(t, err)
		if _, err := known.Get(t.Context(), "ecr", "app", two); err != nil {
			t.Error(err)
		}
		if err := known.Forget(t.Context(), "ecr", "app", two, three); err != nil {
			t.Fatal(err)
		}
		_, err = known.Get(t.Context(), "ecr", "app", two)
		wantNotFound(t, err)
		_, err = known.Home(t.Context(), "ecr", two)
		wantNotFound(t, err)
		time.Sleep(11 * time.Hour)
		_, err = known.Get(t.Context(), "ecr", "app", one)
		wantNotFound(t, err)
	})
}

// TestUnreadable puts values that no version of dray would write under every key.
func TestUnreadable(t *testing.T) {
	for _, garbage := range []string{"", "{", "null", `"text"`, `{"d":"sha256:12","k":"x"}`, `{"d":7}`, "\x00\x01"} {
		store := metatest.NewMemory()
		tags := meta.NewTags(store, meta.Options{})
		links := meta.NewVisibility(store, meta.Options{})
		known := meta.NewPresence(store, meta.PresenceOptions{})
		write := func() error {
			return errors.Join(
				set(t, tags, latest("oci"), meta.TagFact{Digest: one}, 0),
				links.Add(t.Context(), "ecr", "app", meta.Link{Digest: one, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}),
				known.Add(t.Context(), "ecr", "app", meta.Holding{Digest: one, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob}}))
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if err := tags.Forget(t.Context(), "ecr", "team/app", "v0"); err != nil {
			t.Fatal(err)
		}
		for k := range metatest.Listing(t, store, "") {
			metatest.Put(t, store, k, garbage, 0)
		}
		_, err := tags.Get(t.Context(), latest("oci"))
		wantNotFound(t, err)
		_, err = links.Get(t.Context(), "ecr", "app", one)
		wantNotFound(t, err)
		_, err = known.Get(t.Context(), "ecr", "app", one)
		wantNotFound(t, err)
		for tag, err := range tags.All(t.Context(), "") {
			t.Errorf("listed %+v, %v", tag, err)
		}
		reg := prometheus.NewPedanticRegistry()
		for _, f := range []interface{ Collectors() []prometheus.Collector }{tags, links, known} {
			reg.MustRegister(f.Collectors()...)
		}
		if n, err := testutil.GatherAndCount(reg, "dray_meta_unreadable_total"); n != 3 || err != nil {
			t.Errorf("%d series, %v", n, err)
		}
		for i, c := range []prometheus.Collector{tags.Collectors()[0], links.Collectors()[0], known.Collectors()[0]} {
			if got, want := testutil.ToFloat64(c), []float64{2, 1, 1}[i]; got != want {
				t.Errorf("facade %d counted %v unreadable values of %q, want %v", i, got, garbage, want)
			}
		}
		// Unreadable values are overwritten like any other.
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if _, err := tags.Get(t.Context(), latest("oci")); err != nil {
			t.Error(err)
		}
	}
}

// TestFailingStore checks that the facades return the failure of a store, and do not turn it into
// ErrNotFound.
func TestFailingStore(t *testing.T) {
	store := metatest.NewFaulty(metatest.NewMemory())
	broken := errors.New("broken")
	store.Fail(broken, 0)
	tags := meta.NewTags(store, meta.Options{})
	links := meta.NewVisibility(store, meta.Options{})
	known := meta.NewPresence(store, meta.PresenceOptions{})
	_, tag := tags.Get(t.Context(), latest("oci"))
	_, link := links.Get(t.Context(), "ecr", "app", one)
	_, held := known.Get(t.Context(), "ecr", "app", one)
	errs := map[string]error{
		"tag": tag, "link": link, "known": held,
		"set tag":      set(t, tags, latest("oci"), meta.TagFact{Digest: one}, 0),
		"forget tag":   tags.Forget(t.Context(), "ecr", "app", "v1"),
		"add link":     links.Add(t.Context(), "ecr", "app", meta.Link{Digest: one, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}),
		"forget link":  links.Forget(t.Context(), "ecr", "app", one),
		"add known":    known.Add(t.Context(), "ecr", "app", meta.Holding{Digest: one, PresenceFact: meta.PresenceFact{Kind: meta.KindBlob}}),
		"forget known": known.Forget(t.Context(), "ecr", "app", one, two),
	}
	for _, err := range tags.All(t.Context(), "") {
		errs["list"] = err
	}
	if errs["list"] == nil {
		t.Error("the listing hid the failure")
	}
	for what, err := range errs {
		if !errors.Is(err, broken) || errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := metatest.NewMemory()
		touches := meta.NewLastPulls(memory, meta.Options{TTL: time.Hour})
		_, err := touches.Get(t.Context(), "ecr", "team/app", one)
		wantNotFound(t, err)
		want := meta.TouchFact{Touched: time.Now(), Pulled: true, MediaType: manifestType, Tag: "v1"}
		if err := touches.Set(t.Context(), "ecr", "team/app", one, want); err != nil {
			t.Fatal(err)
		}
		if err := touches.Set(t.Context(), "other", "a/b", two, meta.TouchFact{Touched: time.Now()}); err != nil {
			t.Fatal(err)
		}
		got, err := touches.Get(t.Context(), "ecr", "team/app", one)
		if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); err != nil || diff != "" {
			t.Error(err, diff)
		}
		_, err = touches.Get(t.Context(), "ecr", "team/app", two)
		wantNotFound(t, err)
		if err := memory.Put(t.Context(), "v1/touch/ecr/x/sha256:short", []byte(`{"t":1}`), 0); err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for f, err := range touches.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			all[f.Upstream+" "+f.Repo+" "+f.Digest.String()] = f.Pulled
		}
		if diff := cmp.Diff(map[string]bool{"ecr team/app " + one.String(): true, "other a/b " + two.String(): false}, all); diff != "" {
			t.Error(diff)
		}
		if n := testutil.ToFloat64(touches.Collectors()[0]); n != 1 {
			t.Errorf("%v unreadable", n)
		}
		if err := touches.Set(t.Context(), "ecr", "x", "short", want); err == nil {
			t.Error("a digest that is none was kept")
		}
		if err := touches.Set(t.Context(), "ecr", "x", one, meta.TouchFact{}); err == nil {
			t.Error("a last pull without a time was kept")
		}
		time.Sleep(time.Hour)
		_, err = touches.Get(t.Context(), "ecr", "team/app", one)
		wantNotFound(t, err)
	})
}

func TestBases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bases := meta.NewBaseImages(metatest.NewMemory(), meta.Options{TTL: time.Hour})
		layers := []digest.Digest{one, two}
		named := func(layers []digest.Digest) (names []string) {
			t.Helper()
			known, err := bases.Named(t.Context(), layers)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range known {
				names = append(names, n.Upstream+" "+n.Name)
			}
			return names
		}
		learn := func(name string) {
			t.Helper()
			if err := bases.Add(t.Context(), layers, meta.BaseName{Name: name, Upstream: "hub", Seen: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		learn("a:1")
		time.Sleep(40 * time.Minute)
		learn("a:2")
		learn("a:2")
		if diff := cmp.Diff([]string{"hub a:2", "hub a:1"}, named(layers)); diff != "" {
			t.Error(diff)
		}
		for _, other := range [][]digest.Digest{{one}, {two, one}, {one, two, two}, nil} {
			if names := named(other); names != nil {
				t.Errorf("%v is %v", other, names)
			}
		}
		time.Sleep(40 * time.Minute) // each name has its own end
		if diff := cmp.Diff([]string{"hub a:2"}, named(layers)); diff != "" {
			t.Error(diff)
		}
		for i := range 100 {
			learn(fmt.Sprintf("b:%d", i))
		}
		if names := named(layers); len(names) != 32 || names[0] != "hub b:99" {
			t.Errorf("%d names are kept: %v", len(names), names)
		}
		if err := bases.Add(t.Context(), []digest.Digest{"sha256:short"}, meta.BaseName{Name: "c", Seen: time.Now()}); err == nil {
			t.Error("learnt what is no digest")
		}
	})
}

func TestTransit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := metatest.NewMemory()
		a, b := meta.NewTransit(shared, "a"), meta.NewTransit(shared, "b")
		want := meta.TransitFact{Size: 7, Held: true}
		if err := a.Set(t.Context(), "ecr", "team/app", one, want); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Get(t.Context(), "ecr", "team/app", one); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
		_, err := a.Get(t.Context(), "ecr", "team/app", one) // it is its own
		wantNotFound(t, err)
		_, err = b.Get(t.Context(), "ecr", "team/other", one)
		wantNotFound(t, err)
		if err := a.Forget(t.Context(), "ecr", "team/app", one); err != nil {
			t.Fatal(err)
		}
		_, err = b.Get(t.Context(), "ecr", "team/app", one)
		wantNotFound(t, err)
		_ = a.Set(t.Context(), "ecr", "team/app", one, want)
		_ = b.Forget(t.Context(), "ecr", "team/app", one) // a has the blob, too
		if got, err := b.Get(t.Context(), "ecr", "team/app", one); err != nil || got != want {
			t.Errorf("after the end of another transit: %+v, %v", got, err)
		}
		time.Sleep(meta.TransitTTL) // its mirror has died
		_, err = b.Get(t.Context(), "ecr", "team/app", one)
		wantNotFound(t, err)

		if err := a.Opened(t.Context(), "id", time.Hour); err != nil {
			t.Fatal(err)
		}
		if a.OpenElsewhere(t.Context(), "id") || !b.OpenElsewhere(t.Context(), "id") || b.OpenElsewhere(t.Context(), "other") {
			t.Error("an upload is open at the mirror that opened it, and there only")
		}
	})
}

// TestBasesOfNewerVersions: a name that is added to a record leaves alone what another version has
// written there.
func TestBasesOfNewerVersions(t *testing.T) {
	memory := metatest.NewMemory()
	bases := meta.NewBaseImages(memory, meta.Options{})
	layers := []digest.Digest{one}
	add := func(name string) {
		t.Helper()
		if err := bases.Add(t.Context(), layers, meta.BaseName{Name: name, Upstream: "hub", Seen: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	add("a:1")
	var key string
	var value []byte
	for e, err := range memory.Scan(t.Context(), "v1/") {
		if err != nil {
			t.Fatal(err)
		}
		key, value = e.Key, e.Value
	}
	newer := strings.NewReplacer(`{"n":[`, `{"more":{"x":1},"n":[`, `"u":"hub"`, `"u":"hub","signed":["by"]`).Replace(string(value))
	if err := memory.Put(t.Context(), key, []byte(newer), time.Hour); err != nil {
		t.Fatal(err)
	}
	add("a:2")
	after, err := memory.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{`"more":{"x":1}`, `"signed":["by"]`, `"a:1"`, `"a:2"`} {
		if strings.Count(string(after), kept) != 1 {
			t.Errorf("%s is not once in %s", kept, after)
		}
	}
	if names, err := bases.Named(t.Context(), layers); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
}
