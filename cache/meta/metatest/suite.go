package metatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dray/cache/meta"
)

// Suite describes a kind of store, which [Suite.Run] tests.
type Suite struct {
	// Open returns an empty store for one test. The suite calls Close. Open must register any other
	// cleanup.
	Open func(t *testing.T) meta.Store
	// RealTime says that a clock outside of this process decides about expiry, so that virtual time
	// cannot be used.
	RealTime bool
	// InSteps says that Swap compares and puts in several steps, as [meta.SwapInSteps] does. Run then
	// leaves out the test SwapConcurrent.
	InSteps bool
}

// Run checks that the store keeps the contract of [meta.Store].
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T, meta.Store)
	}{
		{"Missing", missing},
		{"Overwrite", overwrite},
		{"Delete", deletes},
		{"OwnBytes", ownBytes},
		{"OddKeys", oddKeys},
		{"BigValues", bigValues},
		{"Batch", batch},
		{"GetAll", getAll},
		{"Swap", swap},
		{"ScanPrefix", scanPrefix},
		{"ScanBreak", scanBreak},
		{"ScanWrites", scanWrites},
		{"Concurrent", concurrent},
		{"Cancelled", cancelled},
		{"Closed", closed},
		{"TTLNegative", ttlNegative},
		{"TTLReplaced", ttlReplaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := s.Open(t)
			t.Cleanup(func() { _ = store.Close() })
			c.test(t, store)
		})
	}
	if !s.InSteps {
		t.Run("SwapConcurrent", func(t *testing.T) {
			store := s.Open(t)
			t.Cleanup(func() { _ = store.Close() })
			swapConcurrent(t, store)
		})
	}
	t.Run("TTLExpiry", s.expiry)
}

// Put puts an entry or fails the test.
func Put(t testing.TB, s meta.Store, key, value string, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

// Want checks the value under key.
func Want(t testing.TB, s meta.Store, key, value string) {
	t.Helper()
	got, err := s.Get(t.Context(), key)
	if err != nil || string(got) != value {
		t.Fatalf("get %q = %.60q, %v; want %.60q", key, got, err, value)
	}
}

// WantAbsent checks that there is no entry under key.
func WantAbsent(t testing.TB, s meta.Store, key string) {
	t.Helper()
	got, err := s.Get(t.Context(), key)
	if !errors.Is(err, meta.ErrNotFound) {
		t.Fatalf("get %q = %.60q, %v; want ErrNotFound", key, got, err)
	}
}

// Listing returns the entries that a scan finds, or fails the test.
func Listing(t testing.TB, s meta.Store, prefix string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for e, err := range s.Scan(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("scan %q: %v", prefix, err)
		}
		found[e.Key] = string(e.Value)
	}
	return found
}

func missing(t *testing.T, s meta.Store) {
	WantAbsent(t, s, "v1/none")
	if err := s.Delete(t.Context(), "v1/none"); err != nil {
		t.Fatalf("delete of what is not there: %v", err)
	}
	if got := Listing(t, s, ""); len(got) != 0 {
		t.Fatalf("a new store holds %v", got)
	}
}

func overwrite(t *testing.T, s meta.Store) {
	Put(t, s, "k", "one", 0)
	Want(t, s, "k", "one")
	Put(t, s, "k", "", time.Hour)
	Want(t, s, "k", "")
	Put(t, s, "k", "three", time.Hour)
	Want(t, s, "k", "three")
	if diff := cmp.Diff(map[string]string{"k": "three"}, Listing(t, s, "k")); diff != "" {
		t.Fatal(diff)
	}
}

func deletes(t *testing.T, s meta.Store) {
	Put(t, s, "k", "v", 0)
	Put(t, s, "k2", "v2", 0)
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	WantAbsent(t, s, "k")
	Want(t, s, "k2", "v2")
	Put(t, s, "k", "again", 0)
	Want(t, s, "k", "again")
}

// ownBytes checks that the store and its caller never share a slice.
func ownBytes(t *testing.T, s meta.Store) {
	value := []byte("mine")
	if err := s.Put(t.Context(), "k", value, 0); err != nil {
		t.Fatal(err)
	}
	copy(value, "XXXX")
	got, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	copy(got, "YYYY")
	Want(t, s, "k", "mine")
}

func oddKeys(t *testing.T, s meta.Store) {
	want := map[string]string{}
	for i, k := range []string{
		"plain", "sp ace", "new\nline", "nul\x00byte", "\xff\xfe", "*", "?", "[a-z]", `back\slash`, "{tag}",
		"a/b/../c", "über/ключ/鍵", "%2F", strings.Repeat("long/", 8192/5), " ", "'\"", "a:b@sha256:00",
	} {
		want[k] = fmt.Sprint(i)
		Put(t, s, k, want[k], 0)
	}
	for k, v := range want {
		Want(t, s, k, v)
		if got := Listing(t, s, k); got[k] != v {
			t.Errorf("scan %.40q found %.100v", k, got)
		}
	}
	if diff := cmp.Diff(want, Listing(t, s, "")); diff != "" {
		t.Error(diff)
	}
	// A prefix is not a pattern: these characters have no special meaning.
	if got := Listing(t, s, "*"); len(got) != 1 {
		t.Errorf("scan of a star found %.200v", got)
	}
	if got := Listing(t, s, "[a-z"); len(got) != 1 {
		t.Errorf("scan of a bracket found %.200v", got)
	}
}

func bigValues(t *testing.T, s meta.Store) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	if err := s.Put(t.Context(), "big", big, time.Hour); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), "big")
	if err != nil || !bytes.Equal(got, big) {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(big))
	}
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	Put(t, s, "big", string(binary), 0)
	Want(t, s, "big", string(binary))
}

func batch(t *testing.T, s meta.Store) {
	Put(t, s, "b/003", "old", 0)
	want := map[string]string{}
	var entries []meta.Entry
	for i := range 700 {
		k, v := fmt.Sprintf("b/%03d", i), fmt.Sprint("value ", i)
		want[k] = v
		entries = append(entries, meta.Entry{Key: k, Value: []byte(v)})
	}
	if err := meta.PutAll(t.Context(), s, entries, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := meta.PutAll(t.Context(), s, nil, time.Hour); err != nil {
		t.Fatalf("nothing: %v", err)
	}
	Want(t, s, "b/003", "value 3")
	if diff := cmp.Diff(want, Listing(t, s, "b/")); diff != "" {
		t.Fatal(diff)
	}
}

func getAll(t *testing.T, s meta.Store) {
	keys := []string{"g/a", "g/none", "g/b", "g/a"}
	Put(t, s, "g/a", "one", time.Hour)
	Put(t, s, "g/b", "", 0)
	seen, err := meta.GetAll(t.Context(), s, keys)
	if err != nil || len(seen) != len(keys) {
		t.Fatalf("got %v, %v", seen, err)
	}
	for i, want := range []meta.Seen{{Entry: meta.Entry{Value: []byte("one")}, Found: true}, {}, {Found: true}, {Entry: meta.Entry{Value: []byte("one")}, Found: true}} {
		if got := seen[i]; got.Key != keys[i] || got.Found != want.Found || string(got.Value) != string(want.Value) {
			t.Errorf("%s: %+v", keys[i], got)
		}
	}
}

func write(key, value string, ttl time.Duration) meta.Write {
	return meta.Write{Entry: meta.Entry{Key: key, Value: []byte(value)}, TTL: ttl}
}

func swap(t *testing.T, s meta.Store) {
	Put(t, s, "s/a", "one", time.Hour)
	seen, err := meta.GetAll(t.Context(), s, []string{"s/a", "s/none"})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := meta.Swap(t.Context(), s, []meta.Write{write("s/a", "two", time.Hour), write("s/c", "\x00=\n", 0)}, seen); !ok || err != nil {
		t.Fatalf("nothing has changed: %v, %v", ok, err)
	}
	Want(t, s, "s/a", "two")
	Want(t, s, "s/c", "\x00=\n")
	if ok, err := meta.Swap(t.Context(), s, []meta.Write{write("s/c", "three", 0)}, seen); ok || err != nil {
		t.Errorf("a value has changed: %v, %v", ok, err)
	}
	for name, one := range map[string]meta.Seen{
		"is gone":     {Entry: meta.Entry{Key: "s/none", Value: []byte("x")}, Found: true},
		"has come":    {Entry: meta.Entry{Key: "s/a"}},
		"is empty":    {Entry: meta.Entry{Key: "s/none"}, Found: true},
		"was emptier": {Entry: meta.Entry{Key: "s/a"}, Found: true},
	} {
		if ok, err := meta.Swap(t.Context(), s, []meta.Write{write("s/c", "three", 0)}, []meta.Seen{one}); ok || err != nil {
			t.Errorf("an entry %s: %v, %v", name, ok, err)
		}
	}
	Want(t, s, "s/c", "\x00=\n")
	if ok, err := meta.Swap(t.Context(), s, []meta.Write{write("s/c", "four", time.Hour)}, nil); !ok || err != nil {
		t.Errorf("without a condition: %v, %v", ok, err)
	}
	Want(t, s, "s/c", "four")
}

// swapConcurrent lets several goroutines count in one entry, and checks that no step is lost.
func swapConcurrent(t *testing.T, s meta.Store) {
	const workers, rounds = 4, 10
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				seen, err := meta.Reread(t.Context(), s, []string{"s/n"})
				if err != nil {
					t.Error(err)
					return
				}
				ok, err := meta.Swap(t.Context(), s, []meta.Write{write("s/n", string(seen[0].Value)+"x", time.Hour)}, seen)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					done++
				}
			}
		})
	}
	wg.Wait()
	seen, err := meta.Reread(t.Context(), s, []string{"s/n"})
	if err != nil || len(seen[0].Value) != workers*rounds {
		t.Errorf("%d steps, %v; want %d", len(seen[0].Value), err, workers*rounds)
	}
}

func scanPrefix(t *testing.T, s meta.Store) {
	for _, k := range []string{"v1/tag/lib/a", "v1/tag/lib/b", "v1/tag/library/c", "v1/tagged", "v1/link/lib/a", "v2/tag/lib/a"} {
		Put(t, s, k, "of "+k, time.Hour)
	}
	want := map[string]string{"v1/tag/lib/a": "of v1/tag/lib/a", "v1/tag/lib/b": "of v1/tag/lib/b"}
	if diff := cmp.Diff(want, Listing(t, s, "v1/tag/lib/")); diff != "" {
		t.Error(diff)
	}
	if got := Listing(t, s, "v1/"); len(got) != 5 {
		t.Errorf("scan v1/ found %v", got)
	}
	if got := Listing(t, s, ""); len(got) != 6 {
		t.Errorf("scan of everything found %v", got)
	}
	if got := Listing(t, s, "v3"); len(got) != 0 {
		t.Errorf("scan v3 found %v", got)
	}
}

func scanBreak(t *testing.T, s meta.Store) {
	for i := range 20 {
		Put(t, s, fmt.Sprint("k", i), "v", 0)
	}
	n := 0
	for _, err := range s.Scan(t.Context(), "k") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Fatalf("saw %d entries before leaving", n)
	}
	Put(t, s, "after", "v", 0) // no lock is held any more
}

// scanWrites checks that the body of a loop over Scan may use the store.
func scanWrites(t *testing.T, s meta.Store) {
	for i := range 600 {
		Put(t, s, fmt.Sprintf("k/%04d", i), strings.Repeat("v", 200), 0)
	}
	for e, err := range s.Scan(t.Context(), "k/") {
		if err != nil {
			t.Fatal(err)
		}
		Put(t, s, "copy/"+e.Key, string(e.Value), 0)
		if err := s.Delete(t.Context(), e.Key); err != nil {
			t.Fatal(err)
		}
	}
	if left := Listing(t, s, "k/"); len(left) != 0 {
		t.Errorf("%d entries are left", len(left))
	}
	if copies := Listing(t, s, "copy/k/"); len(copies) != 600 {
		t.Errorf("%d copies", len(copies))
	}
}

func concurrent(t *testing.T, s meta.Store) {
	const workers, rounds = 8, 40
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				key, value := fmt.Sprintf("own/%d/%d", w, i%5), fmt.Sprint(i)
				if err := s.Put(t.Context(), key, []byte(value), time.Hour); err != nil {
					t.Errorf("put: %v", err)
				}
				if got, err := s.Get(t.Context(), key); err != nil || string(got) != value {
					t.Errorf("own write: got %q, %v; want %q", got, err, value)
				}
				_ = s.Put(t.Context(), "shared", []byte(value), time.Hour)
				if _, err := s.Get(t.Context(), "shared"); err != nil {
					t.Errorf("shared: %v", err)
				}
				if i%10 == 0 {
					for _, err := range s.Scan(t.Context(), "own/") {
						if err != nil {
							t.Errorf("scan: %v", err)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	if got := Listing(t, s, "own/"); len(got) != workers*5 {
		t.Errorf("%d entries, want %d", len(got), workers*5)
	}
}

func cancelled(t *testing.T, s meta.Store) {
	Put(t, s, "k", "v", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, s, ctx, context.Canceled)
	Want(t, s, "k", "v")
	WantAbsent(t, s, "k2")

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	for i := range 2000 {
		Put(t, s, fmt.Sprintf("many/%d", i), "v", 0)
	}
	seen := 0
	for _, err := range s.Scan(ctx, "many/") {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("scan: %v", err)
			}
			break
		}
		seen++
		cancel()
	}
	if seen >= 2000 {
		t.Error("the scan did not notice that its context ended")
	}
}

func closed(t *testing.T, s meta.Store) {
	Put(t, s, "k", "v", 0)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	check(t, s, t.Context(), meta.ErrClosed)
	check(t, s, t.Context(), meta.ErrClosed)
}

// check checks that Get, Put, Delete, PutAll and Scan return wantErr.
func check(t *testing.T, s meta.Store, ctx context.Context, wantErr error) {
	t.Helper()
	_, get := s.Get(ctx, "k")
	errs := map[string]error{
		"get":    get,
		"put":    s.Put(ctx, "k2", []byte("v"), 0),
		"delete": s.Delete(ctx, "k"),
		"batch":  meta.PutAll(ctx, s, []meta.Entry{{Key: "k2", Value: []byte("v")}}, 0),
		"scan":   nil,
	}
	for _, err := range s.Scan(ctx, "k") {
		errs["scan"] = err
	}
	for op, err := range errs {
		if !errors.Is(err, wantErr) {
			t.Errorf("%s: %v, want %v", op, err, wantErr)
		}
	}
}

func ttlNegative(t *testing.T, s meta.Store) {
	Put(t, s, "k", "v", time.Hour)
	Put(t, s, "k", "gone", -time.Second)
	WantAbsent(t, s, "k")
	Put(t, s, "new", "gone", -1)
	WantAbsent(t, s, "new")
	if err := meta.PutAll(t.Context(), s, []meta.Entry{{Key: "b", Value: []byte("v")}}, -1); err != nil {
		t.Fatal(err)
	}
	WantAbsent(t, s, "b")
	if got := Listing(t, s, ""); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// ttlReplaced checks that a put also replaces the expiry.
func ttlReplaced(t *testing.T, s meta.Store) {
	Put(t, s, "k", "short", time.Nanosecond)
	Put(t, s, "k", "long", 0)
	Want(t, s, "k", "long")
}

// expiry lets entries expire, in virtual time if possible.
func (s Suite) expiry(t *testing.T) {
	if s.RealTime {
		s.expire(t, 300*time.Millisecond, func(gone func() bool) bool {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
				if gone() {
					return true
				}
				time.Sleep(20 * time.Millisecond) // the clock of the server cannot be controlled
			}
			return false
		})
		return
	}
	synctest.Test(t, func(t *testing.T) {
		s.expire(t, time.Minute, func(gone func() bool) bool {
			time.Sleep(30 * time.Second)
			if gone() {
				return false // too early
			}
			time.Sleep(31100 * time.Millisecond)
			return gone()
		})
	})
}

func (s Suite) expire(t *testing.T, ttl time.Duration, wait func(gone func() bool) bool) {
	store := s.Open(t)
	defer store.Close()
	Put(t, store, "forever", "v", 0)
	Put(t, store, "hours", "v", 5*time.Hour)
	Put(t, store, "replaced", "v", 5*time.Hour)
	Put(t, store, "soon", "v", ttl)
	Put(t, store, "replaced", "v", ttl)
	if err := meta.PutAll(t.Context(), store, []meta.Entry{{Key: "batched", Value: []byte("v")}}, ttl); err != nil {
		t.Fatal(err)
	}
	Want(t, store, "soon", "v")
	gone := func() bool {
		for _, k := range []string{"soon", "replaced", "batched"} {
			if _, err := store.Get(t.Context(), k); !errors.Is(err, meta.ErrNotFound) {
				return false
			}
		}
		return true
	}
	if !wait(gone) {
		t.Error("entries did not expire when they should")
	}
	if diff := cmp.Diff(map[string]string{"forever": "v", "hours": "v"}, Listing(t, store, "")); diff != "" {
		t.Error(diff)
	}
	Want(t, store, "hours", "v")
}
