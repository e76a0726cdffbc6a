package pull_test

import (
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// redate changes the time at which a fact was recorded.
func (h *fixture) redate(key meta.TagKey, checked time.Time) {
	h.Helper()
	fact, err := h.Tags.Get(h.Context(), key)
	if err != nil {
		h.Fatal(err)
	}
	fact.CheckedAt = checked
	h.record(key, fact)
}

// record records a fact, as the answer to a question that is asked now.
func (h *fixture) record(key meta.TagKey, fact meta.TagFact) {
	h.Helper()
	_, q, _ := h.Tags.Ask(h.Context(), key)
	if ok, err := h.Tags.Set(h.Context(), q, fact, 0); !ok || err != nil {
		h.Fatal(ok, err)
	}
}

// A fact from a clock that was ahead is neither fresh, nor served once more, nor good enough while
// the upstream fails.
func TestFactFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, _ := aged(t)
		key := meta.TagKey{Upstream: "up", Repo: "team/app", Tag: "v1", Accept: oci.AcceptKey(nil)}
		h.redate(key, time.Now().Add(1000*24*time.Hour))
		moved := h.Hold("team/app", "v1", []byte("another layer"))
		h.get(moved, "origin", time.Second)
		a.asked(t, 1)
		h.get(moved, "cache", 0)

		h.redate(key, time.Now().Add(2*time.Second)) // as another mirror's clock may be
		h.get(moved, "cache", 0)

		h.redate(key, time.Now().Add(time.Hour))
		a.fail(oci.ErrUnavailable.With("away"))
		h.Want(503, "GET", "/v2/team/app/manifests/v1", nil)
	})
}

// A push that a clock which was ahead recorded does not win over what the upstream said since.
func TestPushFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, old := aged(t)
		h.get(old, "updating", 0, isStale)
		time.Sleep(2 * time.Second)
		a.asked(t, 1)
		key := meta.TagKey{Upstream: "up", Repo: "team/app", Tag: "v1", Accept: repository.PushedAccept}
		fact := meta.TagFact{Digest: old.Digest, MediaType: old.MediaType, CheckedAt: time.Now().Add(time.Hour)}
		h.record(key, fact)
		h.get(old, "cache", 0)
		a.asked(t, 0)
	})
}

// "Not found" from a clock that was ahead is asked again.
func TestAbsentInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, m := aged(t)
		h.Want(404, "GET", "/v2/team/app/manifests/v2", nil)
		h.redate(meta.TagKey{Upstream: "up", Repo: "team/app", Tag: "v2", Accept: oci.AcceptKey(nil)}, time.Now().Add(time.Hour))
		h.Hold("team/app", "v2", []byte("layer"))
		if w := h.Want(200, "GET", "/v2/team/app/manifests/v2", nil); w.Body.Len() != len(m.Raw) {
			t.Errorf("%d bytes", w.Body.Len())
		}
	})
}
