package meta_test

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// leased reads keys and returns a function that reports whether the lease on these reads is valid.
func leased(t *testing.T, s meta.Store, keys ...string) func() bool {
	t.Helper()
	lease := &meta.Lease{}
	for _, k := range keys {
		if _, err := meta.GetLeased(t.Context(), s, k, lease); err != nil && !errors.Is(err, meta.ErrNotFound) {
			t.Logf("get %s: %v", k, err)
		}
	}
	return func() bool { return lease.Valid(time.Now()) }
}

func put(t *testing.T, s meta.Store, key string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
}

// A lease lasts as long as memory would answer all reads, so it ends with the earliest of them.
func TestLeaseLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewMemory()
		put(t, store, "a")
		f := meta.NewCached(store, meta.CachedOptions{})
		first := leased(t, f, "a")
		time.Sleep(400 * time.Millisecond)
		both, absent := leased(t, f, "b", "a"), leased(t, f, "c")
		time.Sleep(599 * time.Millisecond)
		if !first() || !both() || !absent() {
			t.Errorf("after 999 ms: %v, %v, %v", first(), both(), absent())
		}
		time.Sleep(time.Millisecond)
		if first() || both() || !absent() {
			t.Errorf("after 1 s: %v, %v, %v", first(), both(), absent())
		}
		if time.Sleep(400 * time.Millisecond); absent() {
			t.Error("what was not found is believed for longer than a second")
		}
	})
}

// A lease ends when this process writes to a key that was read, whether or not the write succeeds.
func TestLeaseEndsWithWrites(t *testing.T) {
	failing := errors.New("the store fails")
	for name, write := range map[string]func(f *meta.Cached, s *metatest.Faulty){
		"put":         func(f *meta.Cached, _ *metatest.Faulty) { _ = f.Put(t.Context(), "a", []byte("new"), 0) },
		"put absent":  func(f *meta.Cached, _ *metatest.Faulty) { _ = f.Put(t.Context(), "none", []byte("new"), 0) },
		"put to none": func(f *meta.Cached, s *metatest.Faulty) { s.Fail(failing, 0); _ = f.Put(t.Context(), "a", nil, 0) },
		"batch": func(f *meta.Cached, _ *metatest.Faulty) {
			_ = f.PutAll(t.Context(), []meta.Entry{{Key: "x"}, {Key: "a"}}, time.Hour)
		},
		"delete": func(f *meta.Cached, _ *metatest.Faulty) { _ = f.Delete(t.Context(), "a") },
	} {
		t.Run(name, func(t *testing.T) {
			store := metatest.NewFaulty(metatest.NewMemory())
			put(t, store, "a")
			f := meta.NewCached(store, meta.CachedOptions{Staleness: time.Hour})
			valid := leased(t, f, "a", "none")
			if !valid() {
				t.Fatal("no lease")
			}
			if write(f, store); valid() {
				t.Error("it outlives the write")
			}
		})
	}
}

// A fact is read each time if the store fails, if it is not saved yet, or if there is no memory in
// front of the store.
func TestLeaseRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewFaulty(metatest.NewMemory())
		put(t, store, "a")
		f := meta.NewCached(store, meta.CachedOptions{})
		if leased(t, store, "a")() {
			t.Error("a store without a memory gives a lease")
		}
		if leased(t, f)() {
			t.Error("nothing read gives a lease")
		}
		_ = leased(t, f, "a")
		store.Fail(errors.New("the store fails"), 0)
		time.Sleep(2 * time.Second)
		if leased(t, f, "a")() {
			t.Error("a bridged answer gives a lease")
		}
		_ = f.Put(t.Context(), "u", []byte("unsaved"), 0)
		if time.Sleep(2 * time.Second); leased(t, f, "u")() {
			t.Error("an unsaved write that is due gives a lease")
		}
		store.Fail(nil, 0)
		if time.Sleep(2 * time.Second); !leased(t, f, "a")() {
			t.Error("none is given when the store works again")
		}
	})
}

// A read that begins after a write has returned gets the value that was written. A lease does not
// let a caller keep an older value.
func TestLeaseReadsItsWrites(t *testing.T) {
	f := meta.NewCached(metatest.NewMemory(), meta.CachedOptions{Staleness: time.Hour})
	var landed atomic.Uint32
	var wg sync.WaitGroup
	put(t, f, "a")
	for range 4 {
		wg.Go(func() {
			var have uint32
			lease := &meta.Lease{}
			for landed.Load() < 2000 {
				least := landed.Load()
				if lease.Valid(time.Now()) {
					if have < least {
						t.Errorf("%d is kept after %d was written", have, least)
						return
					}
					continue
				}
				lease = &meta.Lease{}
				v, err := meta.GetLeased(t.Context(), f, "a", lease)
				if err != nil {
					t.Error(err)
					return
				}
				if have = 0; len(v) == 4 {
					have = binary.BigEndian.Uint32(v)
				}
			}
		})
	}
	for i := range uint32(2000) {
		if err := f.Put(t.Context(), "a", binary.BigEndian.AppendUint32(nil, i+1), 0); err != nil {
			t.Error(err)
		}
		landed.Store(i + 1)
	}
	wg.Wait()
}
