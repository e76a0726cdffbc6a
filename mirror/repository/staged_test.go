package repository

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// bytesOf is how the bytes of a staged blob are released.
type bytesOf struct{ closed, suspended int }

func (b *bytesOf) Close() error   { b.closed++; return nil }
func (b *bytesOf) Suspend() error { b.suspended++; return nil }

// A blob is released once, and counts against its owner's quota until then, or until the queue has
// it.
func TestStaging(t *testing.T) {
	refunded := map[string]int64{}
	s := NewStaging(time.Hour, func(owner string, n int64) { refunded[owner] += n })
	now := time.Now()
	var blobs []*bytesOf
	stage := func(name, owner string) Key {
		b := &bytesOf{}
		blobs = append(blobs, b)
		k := key(digest.FromString(name))
		s.Set(k, &Staged{Size: 10, Owner: owner, Blob: b})
		return k
	}
	wants := func(when string, staged int, of map[string]int64, released ...int) {
		t.Helper()
		if s.Len() != staged {
			t.Errorf("%s %d are staged, want %d", when, s.Len(), staged)
		}
		for owner, n := range of {
			if refunded[owner] != n {
				t.Errorf("%s %s has back %d bytes, want %d", when, owner, refunded[owner], n)
			}
		}
		for i, n := range released {
			if blobs[i].closed != n || blobs[i].suspended > 0 {
				t.Errorf("%s blob %d was closed %d times and suspended %d times, want %d and none", when, i, blobs[i].closed, blobs[i].suspended, n)
			}
		}
	}
	k := stage("one", "ann")
	if stage("one", "bob") != k || s.Get(k).Owner != "bob" {
		t.Error("the second push of a blob does not replace the first")
	}
	wants("after a second push of it", 1, map[string]int64{"ann": 10, "bob": 0}, 1, 0)
	s.Queued(k)
	s.Queued(k)
	wants("in the queue", 1, map[string]int64{"bob": 10}, 1, 0)
	s.Drop(k, key(digest.FromString("unknown")))
	s.Drop(k)
	wants("after its push", 0, map[string]int64{"bob": 10}, 1, 1)

	old, renewed := stage("old", "cid"), stage("renewed", "cid")
	s.Get(old).Since, s.Get(renewed).Since = now.Add(-time.Hour), now.Add(-time.Hour)
	s.Renew(Keys(renewed.Repo, []oci.Child{{Descriptor: oci.Descriptor{Digest: renewed.Digest}}})...)
	s.Expire(now)
	wants("after the expiry", 1, map[string]int64{"cid": 10}, 1, 1, 1, 0)

	s.SuspendAll()
	if last := blobs[3]; s.Len() != 0 || last.suspended != 1 || last.closed != 0 || refunded["cid"] != 10 {
		t.Errorf("left to the next process: %+v, and %d are staged", last, s.Len())
	}
}
