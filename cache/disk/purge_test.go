package disk

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestPurge checks that a blob in use stays without force, and that one which a push needs stays
// even with force.
func TestPurge(t *testing.T) {
	d := opened(t, Options{})
	content := random(1, 9000)
	dg := digest.FromBytes(content)
	purge := func(unless Unless, want error) {
		t.Helper()
		if err := d.Purge(t.Context(), dg, unless); !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("unless %v: %v, want %v", unless, err, want)
		}
	}
	purge(UnlessInUse, ErrNotFound)
	purge(UnlessNeeded, ErrNotFound)

	mustStore(t, d, content)
	purge(UnlessInUse, nil)
	wantMissing(t, d, dg)

	mustStore(t, d, content)
	b, err := d.Open(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	purge(UnlessInUse, ErrInUse)
	purge(UnlessNeeded, nil)
	wantMissing(t, d, dg)
	got := make([]byte, len(content))
	if _, err := b.ReadAt(got, 0); err != nil || digest.FromBytes(got) != dg {
		t.Errorf("who had it open does not read on: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	mustStore(t, d, content)
	if err := d.SetPin(t.Context(), "kept", []digest.Digest{dg}); err != nil {
		t.Fatal(err)
	}
	purge(UnlessInUse, ErrInUse)
	purge(UnlessNeeded, nil)
	wantMissing(t, d, dg)
	if _, err := d.RemovePin(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}

	mustStore(t, d, content)
	release, err := d.Retain(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.Retain(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	purge(UnlessNeeded, ErrInUse)
	release()
	release()
	purge(UnlessNeeded, ErrInUse)
	again()
	purge(UnlessInUse, nil)
	wantMissing(t, d, dg)
	if s := d.Stats(); s.Bytes != 0 || s.Blobs != 0 {
		t.Errorf("%+v are left of nothing", s)
	}
}

// TestPurgeOfWhatIsTended checks that a blob can be purged while the directory syncs it or verifies
// it again.
func TestPurgeOfWhatIsTended(t *testing.T) {
	for _, op := range []Op{OpSync, OpRead} {
		t.Run(string(op), func(t *testing.T) {
			reached, gate := make(chan struct{}), make(chan struct{})
			wait := sync.OnceFunc(func() { close(reached); <-gate })
			d := opened(t, Options{Scrub: Scrub{Interval: time.Hour}, Fault: func(at Op, _ string) error {
				if at == op {
					wait()
				}
				return nil
			}})
			dg := mustStore(t, d, random(1, 9000))
			stop := running(t, d)
			goOn := sync.OnceFunc(func() { close(gate) })
			defer goOn()
			<-reached
			if i, held := d.Lookup(dg); !held || i.Open {
				t.Errorf("%+v, held: %v", i, held)
			}
			e, ok := d.reference(dg)
			if !ok {
				t.Fatal("not held")
			}
			release := d.retain(e)
			if i, _ := d.Lookup(dg); !i.Open {
				t.Error("who needs it does not count")
			}
			for _, unless := range []Unless{UnlessInUse, UnlessNeeded} {
				if err := d.Purge(t.Context(), dg, unless); !errors.Is(err, ErrInUse) {
					t.Errorf("unless %v: %v, want %v", unless, err, ErrInUse)
				}
			}
			release()
			if err := d.Purge(t.Context(), dg, UnlessInUse); err != nil {
				t.Error(err)
			}
			wantMissing(t, d, dg)
			goOn()
			stop()
			if s := d.Stats(); s.Bytes != 0 || s.Blobs != 0 || s.Unsynced != 0 {
				t.Errorf("%+v are left of nothing", s)
			}
		})
	}
}

// TestPeek checks that Peek does not count as a use.
func TestPeek(t *testing.T) {
	d := opened(t, Options{})
	content := random(1, 9000)
	dg := mustStore(t, d, content)
	d.index.get(dg).touch.Store(time.Now().Add(-48 * time.Hour).UnixNano())
	before, _ := d.Lookup(dg)
	b, err := d.Peek(dg)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := b.ReadAt(got, 0); err != nil || digest.FromBytes(got) != dg {
		t.Errorf("%v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.Lookup(dg); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	if _, err := d.Peek(digest.FromString("none")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := d.Peek("nonsense"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
