package mirror_test

import (
	"strings"
	"testing"

	"dray/cache/disk"
	"dray/mirror/mirrortest"
)

// While the disk takes no upload, the check of pushes fails, and after the next push it does not.
// A client that is refused for its own mistake is no failure.
func TestCheckPushes(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{})
	const start = "/v2/team/app/blobs/uploads/"
	for range 5 {
		h.Want(404, "PATCH", start+"nobodys", []byte("x"))
	}
	if err := h.Mirror.CheckPushes(t.Context()); err != nil {
		t.Error(err)
	}
	h.Break(disk.OpCreate)
	for range 3 {
		if w := h.Do("POST", start, nil); w.Code < 500 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if err := h.Mirror.CheckPushes(t.Context()); err == nil || !strings.Contains(err.Error(), "pushes to up") || strings.Contains(err.Error(), mirrortest.ErrBroken.Error()) {
		t.Errorf("on a broken disk: %v", err)
	}
	// Requests of other kinds tell nothing about it.
	h.Hold("team/app", "v1", []byte("a layer"))
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", "*/*")
	if err := h.Mirror.CheckPushes(t.Context()); err == nil {
		t.Error("a pull made pushes well")
	}
	h.Break("")
	h.Want(202, "POST", start, nil)
	if err := h.Mirror.CheckPushes(t.Context()); err != nil {
		t.Errorf("on the mended disk: %v", err)
	}
}
