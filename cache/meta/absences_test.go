package meta_test

import (
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

func TestAbsences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), metatest.NewMemory()
		absences := meta.NewTags(store, meta.Options{}).Absences()
		blob := meta.AbsentKey{Upstream: "ecr", Repo: "team/app", Digest: one, Kind: meta.KindBlob}
		manifest := meta.AbsentKey{Upstream: "ecr", Repo: "team/app", Digest: one, Kind: meta.KindManifest, Accept: "oci"}
		asked := time.Now()
		want := meta.AbsentFact{CheckedAt: asked, Reason: meta.Reason{Code: "BLOB_UNKNOWN", Text: "no such blob"}}
		set := func(k meta.AbsentKey, f meta.AbsentFact) {
			t.Helper()
			if err := absences.Set(ctx, absences.Ask(ctx, k), f, 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		set(blob, want)
		if got, err := absences.Get(ctx, blob); err != nil || !got.CheckedAt.Equal(asked) || got.Reason != want.Reason {
			t.Errorf("got %+v, %v", got, err)
		}
		// Another kind, Accept, digest, repository or upstream is another question.
		set(manifest, meta.AbsentFact{CheckedAt: asked})
		docker, other, sub, hub := manifest, blob, blob, blob
		docker.Accept, other.Digest, sub.Repo, hub.Upstream = "docker", two, "team", "hub"
		for _, k := range []meta.AbsentKey{docker, other, sub, hub} {
			_, err := absences.Get(ctx, k)
			wantNotFound(t, err)
		}
		// The digest has come, so the answer to an older question must not be recorded.
		underway := absences.Ask(ctx, blob)
		if err := absences.Forget(ctx, "ecr", "team/app", one); err != nil {
			t.Fatal(err)
		}
		if err := absences.Set(ctx, underway, want, 10*time.Second); err != nil {
			t.Error(err)
		}
		for _, k := range []meta.AbsentKey{blob, manifest} {
			_, err := absences.Get(ctx, k)
			wantNotFound(t, err)
		}
		time.Sleep(time.Second)
		set(blob, meta.AbsentFact{CheckedAt: time.Now()})
		if _, err := absences.Get(ctx, blob); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		_, err := absences.Get(ctx, blob)
		wantNotFound(t, err)
		if err := absences.Set(ctx, absences.Ask(ctx, blob), want, 0); err != nil { // such answers are not believed at all
			t.Error(err)
		}
	})
}
