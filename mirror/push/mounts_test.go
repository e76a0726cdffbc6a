package push

import (
	"testing"
	"testing/synctest"
	"time"

	"dray/mirror/repository"
)

// Two repositories between which a mount was refused are left alone for a while; an upstream that
// mounted lately is reliable for as long. A failure says nothing.
func TestMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, other := &repository.Upstream{Name: "up"}, &repository.Upstream{Name: "other"}
		repo := func(name string) repository.Repo { return repository.Repo{Up: up, Name: name} }
		ab, ba := pair{repo("a"), repo("b")}, pair{repo("b"), repo("a")}
		m := newMounts()
		wants := func(when string, paused, reliable bool) {
			t.Helper()
			if m.paused(ab) != paused || m.reliable(up) != reliable {
				t.Errorf("%s: paused %t, reliable %t; want %t, %t", when, m.paused(ab), m.reliable(up), paused, reliable)
			}
		}
		wants("at first", false, false)
		m.note(ab, mountFailed)
		wants("after a failure", false, false)
		m.note(ab, mountRefused)
		wants("after a refusal", true, false)
		if m.paused(ba) {
			t.Error("the other direction is paused")
		}
		time.Sleep(mountPause - time.Second)
		wants("within the pause", true, false)
		time.Sleep(time.Second)
		wants("after the pause", false, false)

		m.note(ab, mountRefused)
		m.note(ab, mountDone)
		wants("after a success", false, true)
		m.note(ba, mountRefused)
		wants("after a refusal elsewhere", false, true)
		if m.reliable(other) {
			t.Error("another upstream is reliable")
		}
		time.Sleep(mountPause)
		wants("later", false, false)
	})
}
