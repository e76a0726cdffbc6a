package push_test

import (
	"testing"

	"dray/mirror/mirrortest"
)

// Unless other mirrors work on pushes as well, a push of a tag asks once about the tag. With the
// record of the push, that makes three reads more than a push by digest.
func TestPushAsksOnce(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{})
	m := h.Push("team/app", "v1", []byte("layer"))
	reads := func(reference string) int {
		before := h.Facts.Calls("get")
		h.Want(201, "PUT", "/v2/team/app/manifests/"+reference, m.Raw, "Content-Type", m.MediaType)
		return h.Facts.Calls("get") - before
	}
	if byDigest, byTag := reads(m.Digest.String()), reads("v1"); byTag > byDigest+3 {
		t.Errorf("%d reads by tag, %d by digest", byTag, byDigest)
	}
}
