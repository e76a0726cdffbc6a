package repository

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// manifestOf makes a manifest of n bytes that describes another one, or none.
func manifestOf(name string, n int, subject digest.Digest) *oci.Manifest {
	man := &oci.Manifest{Raw: fmt.Appendf(nil, "%-*s", n, name)}
	man.Digest = digest.FromBytes(man.Raw)
	if subject != "" {
		man.Subject = &oci.Descriptor{Digest: subject}
	}
	return man
}

// key names content of the one repository of these tests.
func key(d digest.Digest) Key { return Repo{Name: "app"}.Key(d) }

// wait adds manifests of 1000 bytes.
func wait(b *Waiting, owner string, names ...string) {
	for _, name := range names {
		man := manifestOf(name, 1000, "")
		b.Add(key(man.Digest), man, owner, time.Now().Add(time.Hour), nil)
	}
}

func waits(b *Waiting, name string) bool {
	return b.Get(key(manifestOf(name, 1000, "").Digest)) != nil
}

func wantWaiting(t *testing.T, b *Waiting, names ...string) {
	t.Helper()
	for _, name := range names {
		if !waits(b, name) {
			t.Errorf("%s waits no longer", name)
		}
	}
	if b.Len() != len(names) {
		t.Errorf("%d wait, want %q", b.Len(), names)
	}
}

// A client that pushes more than its share loses its oldest manifests, and nobody else's.
// Beyond the bound for all clients, the oldest manifests are dropped, whoever pushed them.
func TestWaitingShares(t *testing.T) {
	const each = 1000 + waitingOverhead
	b := newWaiting(5*each, 3*each)
	wait(b, "other", "o1")
	wait(b, "greedy", "g1", "g2", "g3", "g4", "g5")
	wantWaiting(t, b, "o1", "g3", "g4", "g5")
	wait(b, "greedy", "g3") // again: it is the newest now
	wait(b, "greedy", "g6")
	wantWaiting(t, b, "o1", "g5", "g3", "g6")
	wait(b, "third", "t1", "t2")
	wantWaiting(t, b, "g5", "g3", "g6", "t1", "t2")
	wait(b, "third", "g6") // now it counts for this client
	wait(b, "greedy", "g7")
	wantWaiting(t, b, "g3", "t1", "t2", "g6", "g7")

	b.Expire(time.Now().Add(2 * time.Hour))
	wantWaiting(t, b)
	if b.all.bytes != 0 || len(b.byOwner) != 0 || b.all.order.Len() != 0 {
		t.Errorf("what has gone is counted: %d bytes, %d clients", b.all.bytes, len(b.byOwner))
	}
}

// Referrers of a manifest are found oldest first, and only in its own repository.
func TestWaitingAbout(t *testing.T) {
	b := newWaiting(maxWaiting, maxWaitingClient)
	wait(b, "one", "x", "y")
	subject := digest.FromString("image")
	var keys []Key
	for i := range 5 {
		for _, repo := range []string{"app", "elsewhere"} {
			man := manifestOf(fmt.Sprint(repo, i), 100, subject)
			k := Repo{Name: repo}.Key(man.Digest)
			b.Add(k, man, "one", time.Now().Add(time.Hour), nil)
			if repo == "app" {
				keys = append(keys, k)
			}
		}
	}
	b.Drop(keys[1])
	about := b.Referrers(key(subject))
	if len(about) != 4 {
		t.Fatalf("%d describe the image, want 4", len(about))
	}
	for i, at := range []int{0, 2, 3, 4} {
		if about[i].Digest != keys[at].Digest {
			t.Errorf("number %d is %s", i, about[i].Raw)
		}
	}
	for _, k := range keys {
		b.Drop(k)
	}
	if n := len(b.Referrers(key(subject))); n != 0 || len(b.bySubject) != 1 {
		t.Errorf("%d describe the image after they have gone", n)
	}
	if b.Drop(keys[0]) {
		t.Error("it went twice")
	}
}

// A withdrawn manifest waits again, unless a client pushes it again at the same time.
func TestWaitingRestored(t *testing.T) {
	b := newWaiting(maxWaiting, maxWaitingClient)
	k := key(manifestOf("x", 1000, "").Digest)
	wait(b, "one", "x")
	waited, end := b.Withdraw(k)
	if end(true); !waited || !waits(b, "x") || b.byKey[k].owner != "one" {
		t.Error("it waits no longer")
	}
	for range 1000 {
		wait(b, "one", "x")
		_, end := b.Withdraw(k)
		var wg sync.WaitGroup
		wg.Go(func() { end(true) })
		wait(b, "two", "x")
		wg.Wait()
		if owner := b.byKey[k].owner; owner != "two" {
			t.Fatalf("the push of two was replaced by that of %s", owner)
		}
	}
}

// closed counts how often a copy is closed.
type closed int

func (c *closed) Close() error { *c++; return nil }

// The copy of a manifest is closed once, when the manifest waits no longer.
func TestWaitingClosesCopies(t *testing.T) {
	const each = 1000 + waitingOverhead
	man := manifestOf("x", 1000, "")
	k := key(man.Digest)
	for name, c := range map[string]struct {
		end    func(b *Waiting)
		closed closed
	}{
		"waits":                           {func(*Waiting) {}, 0},
		"dropped":                         {func(b *Waiting) { b.Drop(k); b.Drop(k) }, 1},
		"replaced":                        {func(b *Waiting) { wait(b, "one", "x") }, 1},
		"displaced":                       {func(b *Waiting) { wait(b, "one", "y", "z") }, 1},
		"expired":                         {func(b *Waiting) { b.Expire(time.Now().Add(2 * time.Hour)) }, 1},
		"withdrawn":                       {func(b *Waiting) { _, end := b.Withdraw(k); end(false); b.Drop(k) }, 1},
		"restored":                        {func(b *Waiting) { _, end := b.Withdraw(k); end(true) }, 0},
		"restored, and dropped":           {func(b *Waiting) { _, end := b.Withdraw(k); end(true); b.Drop(k) }, 1},
		"replaced while it was withdrawn": {func(b *Waiting) { _, end := b.Withdraw(k); wait(b, "one", "x"); end(true) }, 1},
	} {
		b, kept := newWaiting(2*each, 2*each), closed(0)
		b.Add(k, man, "one", time.Now().Add(time.Hour), &kept)
		if c.end(b); kept != c.closed {
			t.Errorf("%s: closed %d times, want %d", name, kept, c.closed)
		}
	}
}
