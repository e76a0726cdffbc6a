package meta_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

func TestTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := meta.NewTags(metatest.NewMemory(), meta.Options{})
		_, err := tags.Get(t.Context(), latest("oci"))
		wantNotFound(t, err)

		asked := time.Now()
		want := meta.TagFact{Digest: one, MediaType: manifestType, Size: 512, CheckedAt: asked}
		time.Sleep(time.Second) // the answer came later than the question
		if err := set(t, tags, latest("oci"), want, time.Hour); err != nil {
			t.Fatal(err)
		}
		got, err := tags.Get(t.Context(), latest("oci"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Fatal(diff)
		}
		// Another Accept, tag, repository or upstream is another question.
		for _, k := range []meta.TagKey{
			latest("docker"),
			{Upstream: "ecr", Repo: "team/app", Tag: "v1", Accept: "oci"},
			{Upstream: "ecr", Repo: "team", Tag: "app/latest", Accept: "oci"},
			{Upstream: "hub", Repo: "team/app", Tag: "latest", Accept: "oci"},
		} {
			_, err := tags.Get(t.Context(), k)
			wantNotFound(t, err)
		}
		time.Sleep(time.Hour)
		_, err = tags.Get(t.Context(), latest("oci"))
		wantNotFound(t, err)
	})
}

func TestTagNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := meta.NewTags(metatest.NewMemory(), meta.Options{})
		if err := set(t, tags, latest("oci"), meta.TagFact{NotFound: true, Reason: meta.Reason{Code: "NAME_UNKNOWN", Text: "no such repository"}}, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		got, err := tags.Get(t.Context(), latest("oci"))
		if err != nil || !got.NotFound || got.Digest != "" {
			t.Fatalf("got %+v, %v", got, err)
		}
		time.Sleep(10 * time.Second)
		_, err = tags.Get(t.Context(), latest("oci"))
		wantNotFound(t, err)

		if err := set(t, tags, latest("oci"), meta.TagFact{NotFound: true}, -1); err != nil {
			t.Fatal(err)
		}
		_, err = tags.Get(t.Context(), latest("oci"))
		wantNotFound(t, err)
	})
}

// TestTagForget checks that after a push no older fact about the tag is seen for any Accept, not
// even one whose question was on its way during the push.
func TestTagForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := meta.NewTags(meta.NewCached(metatest.NewMemory(), meta.CachedOptions{}), meta.Options{})
		other := meta.TagKey{Upstream: "ecr", Repo: "team/app", Tag: "v1", Accept: "oci"}
		old := meta.TagFact{Digest: one, CheckedAt: time.Now()}
		for _, k := range []meta.TagKey{latest("oci"), latest("docker"), latest(meta.Referrers), other} {
			if err := set(t, tags, k, old, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		// This also holds at the same instant: the epoch tells the facts apart, not the clock.
		if err := tags.Forget(t.Context(), "ecr", "team/app", "latest"); err != nil {
			t.Fatal(err)
		}
		for _, accept := range []string{"oci", "docker", meta.Referrers} {
			_, err := tags.Get(t.Context(), latest(accept))
			wantNotFound(t, err)
		}
		if _, err := tags.Get(t.Context(), other); err != nil {
			t.Fatalf("another tag was forgotten: %v", err)
		}
		pushed := meta.TagFact{Digest: two, CheckedAt: time.Now()}
		if err := set(t, tags, latest("oci"), pushed, time.Hour); err != nil {
			t.Fatal(err)
		}
		if got, err := tags.Get(t.Context(), latest("oci")); err != nil || got.Digest != two {
			t.Fatalf("after the push: %+v, %v", got, err)
		}

		var underway []meta.Question
		for _, accept := range []string{"docker", "oci"} {
			_, q, _ := tags.Ask(t.Context(), latest(accept))
			underway = append(underway, q)
		}
		if err := tags.Forget(t.Context(), "ecr", "team/app", "latest"); err != nil {
			t.Fatal(err)
		}
		for i, late := range []meta.TagFact{{Digest: one}, {NotFound: true}} {
			if ok, err := tags.Set(t.Context(), underway[i], late, time.Hour); ok || err != nil {
				t.Errorf("the answer from before a push was recorded: %v, %v", ok, err)
			}
		}
		for _, accept := range []string{"oci", "docker", meta.Referrers} {
			_, err := tags.Get(t.Context(), latest(accept))
			wantNotFound(t, err)
		}
	})
}

// TestTagPushed has a push and, with it, the end of all that was known.
func TestTagPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := shared()
		mine, theirs := meta.NewTags(a, meta.Options{}), meta.NewTags(b, meta.Options{})
		for _, accept := range []string{"oci", "docker"} {
			if err := set(t, theirs, latest(accept), meta.TagFact{Digest: one}, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, underway, _ := theirs.Ask(t.Context(), latest("oci"))
		if err := pushed(t, mine, latest("pushed"), meta.TagFact{Digest: two, CheckedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if f, err := mine.Get(t.Context(), latest("pushed")); err != nil || f.Digest != two {
			t.Errorf("the mirror of the push has %+v, %v", f, err)
		}
		if ok, err := theirs.Set(t.Context(), underway, meta.TagFact{Digest: one}, 0); ok || err != nil {
			t.Errorf("the answer from before the push was recorded: %v, %v", ok, err)
		}
		time.Sleep(time.Second) // that memory may take
		for _, tags := range []*meta.Tags{mine, theirs} {
			all, err := tags.Find(t.Context(), latest("oci"), latest("pushed"), latest("docker"))
			if err != nil || all[0] != nil || all[1] == nil || all[1].Digest != two || all[2] != nil {
				t.Errorf("found %+v, %v", all, err)
			}
		}
		if calls := store.Calls("get"); calls > 40 {
			t.Errorf("%d reads", calls)
		}
	})
}

// TestTagAnswersInTurn has two mirrors ask about a tag. The answer to the later question stays, in
// whichever order the answers come.
func TestTagAnswersInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, laterFirst := range []bool{false, true} {
			store := metatest.NewMemory()
			tags := []*meta.Tags{meta.NewTags(meta.NewCached(store, meta.CachedOptions{}), meta.Options{}), meta.NewTags(meta.NewCached(store, meta.CachedOptions{}), meta.Options{})}
			var questions []meta.Question
			for _, one := range tags {
				_, q, _ := one.Ask(t.Context(), latest("oci"))
				questions = append(questions, q)
				time.Sleep(time.Second)
			}
			order := []int{0, 1}
			if laterFirst {
				order = []int{1, 0}
			}
			for _, i := range order {
				ok, err := tags[i].Set(t.Context(), questions[i], meta.TagFact{Digest: []digest.Digest{one, two}[i]}, 0)
				if err != nil || ok != (i == 1 || !laterFirst) {
					t.Errorf("answer %d: %v, %v", i, ok, err)
				}
			}
			time.Sleep(time.Second)
			for _, each := range tags {
				if f, err := each.Get(t.Context(), latest("oci")); err != nil || f.Digest != two {
					t.Errorf("got %+v, %v", f, err)
				}
			}
		}
	})
}

// TestTagForgetOutlivesFacts lets a fact live as long as it may and checks that
// it never comes back.
func TestTagForgetOutlivesFacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := meta.NewTags(metatest.NewMemory(), meta.Options{TTL: 24 * time.Hour})
		if err := set(t, tags, latest("oci"), meta.TagFact{Digest: one}, 1000*time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := tags.Forget(t.Context(), "ecr", "team/app", "latest"); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			_, err := tags.Get(t.Context(), latest("oci"))
			wantNotFound(t, err)
			time.Sleep(time.Hour)
		}
	})
}

func TestTagForgetConcurrent(t *testing.T) {
	tags := meta.NewTags(metatest.NewMemory(), meta.Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		_, q, _ := tags.Ask(t.Context(), latest(fmt.Sprint(i)))
		wg.Go(func() {
			for range 50 {
				_, _ = tags.Set(t.Context(), q, meta.TagFact{Digest: one}, time.Hour)
			}
		})
	}
	wg.Go(func() {
		time.Sleep(time.Microsecond)
		if err := tags.Forget(t.Context(), "ecr", "team/app", "latest"); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	for i := range 8 {
		_, err := tags.Get(t.Context(), latest(fmt.Sprint(i)))
		wantNotFound(t, err)
	}
}

func TestTagsAll(t *testing.T) {
	tags := meta.NewTags(metatest.NewMemory(), meta.Options{})
	set := func(upstream, repo, tag string) {
		k := meta.TagKey{Upstream: upstream, Repo: repo, Tag: tag, Accept: "oci"}
		if err := set(t, tags, k, meta.TagFact{Digest: one}, 0); err != nil {
			t.Fatal(err)
		}
	}
	set("ecr", "team/app", "v1")
	set("ecr", "team/app", "v2")
	set("ecr2", "x", "y")
	if err := tags.Forget(t.Context(), "ecr", "team/app", "v2"); err != nil {
		t.Fatal(err)
	}
	list := func(upstream string) map[string]digest.Digest {
		found := map[string]digest.Digest{}
		for tag, err := range tags.All(t.Context(), upstream) {
			if err != nil {
				t.Fatal(err)
			}
			found[tag.Upstream+"/"+tag.Repo+":"+tag.Tag] = tag.Digest
		}
		return found
	}
	if diff := cmp.Diff(map[string]digest.Digest{"ecr/team/app:v1": one}, list("ecr")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]digest.Digest{"ecr/team/app:v1": one, "ecr2/x:y": one}, list("")); diff != "" {
		t.Error(diff)
	}
}
