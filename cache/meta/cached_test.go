package meta_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// shared is a store that two mirrors use, each through a Cached of its own.
func shared() (*metatest.Faulty, *meta.Cached, *meta.Cached) {
	store := metatest.NewFaulty(metatest.NewMemory())
	return store, meta.NewCached(store, meta.CachedOptions{}), meta.NewCached(store, meta.CachedOptions{})
}

// running sends again what the store of c refuses, until the test ends.
func running(t *testing.T, c *meta.Cached) {
	done := make(chan error)
	go func() { done <- c.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFrontedStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := shared()
		metatest.WantAbsent(t, b, "k")
		metatest.Put(t, a, "k", "one", time.Hour)
		metatest.Want(t, a, "k", "one") // own write at once
		metatest.WantAbsent(t, b, "k")  // another's within a second
		time.Sleep(time.Second)
		metatest.Want(t, b, "k", "one")

		asked := store.Calls("get")
		for range 100 {
			metatest.Want(t, b, "k", "one")
		}
		if got := store.Calls("get"); got != asked {
			t.Errorf("the store was asked %d times within the staleness", got-asked)
		}
		metatest.Put(t, a, "k", "two", time.Hour)
		metatest.Want(t, b, "k", "one")
		time.Sleep(time.Second)
		metatest.Want(t, b, "k", "two")
		if err := a.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		metatest.WantAbsent(t, a, "k")
		time.Sleep(time.Second)
		metatest.WantAbsent(t, b, "k")
	})
}

// TestFrontedNegative checks that absence is not remembered for longer than a
// second, however long the staleness is.
func TestFrontedNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewMemory()
		front := meta.NewCached(store, meta.CachedOptions{Staleness: time.Hour})
		metatest.WantAbsent(t, front, "k")
		metatest.Put(t, store, "k", "v", 0)
		time.Sleep(time.Second)
		metatest.Want(t, front, "k", "v")
		if err := front.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		metatest.Put(t, store, "k", "v2", 0)
		metatest.WantAbsent(t, front, "k")
		time.Sleep(time.Second)
		metatest.Want(t, front, "k", "v2")
	})
}

func TestFrontedBridgesFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := shared()
		broken := errors.New("broken")
		metatest.Put(t, store, "read", "r", 0)
		metatest.Want(t, a, "read", "r")
		metatest.Put(t, a, "written", "w", 10*time.Minute)
		store.Fail(broken, 0)
		time.Sleep(5 * time.Minute)
		metatest.Want(t, a, "read", "r")
		metatest.Want(t, a, "written", "w")
		if _, err := a.Get(t.Context(), "never seen"); !errors.Is(err, broken) {
			t.Errorf("what is not held: %v", err)
		}
		time.Sleep(6 * time.Minute)
		metatest.Want(t, a, "read", "r")
		if _, err := a.Get(t.Context(), "written"); !errors.Is(err, broken) {
			t.Errorf("an entry outlived its ttl: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := a.Get(t.Context(), "read"); !errors.Is(err, broken) {
			t.Errorf("an entry was bridged for more than an hour: %v", err)
		}
		if n := testutil.CollectAndCount(a.Collectors()[0]); n != 2 {
			t.Errorf("%d kinds of answers counted", n)
		}
	})
}

// TestFrontedRefused checks that writes that the store refused are visible to their writer while
// the store fails, and are dropped when it works again. The writes of others meanwhile stay.
func TestFrontedRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := shared()
		running(t, a)
		broken := errors.New("broken")
		metatest.Put(t, a, "k", "old", 0)
		metatest.Put(t, a, "deleted", "old", 0)
		store.Fail(broken, 0)
		for what, err := range map[string]error{
			"put":    a.Put(t.Context(), "k", []byte("refused"), time.Hour),
			"batch":  a.PutAll(t.Context(), []meta.Entry{{Key: "k2", Value: []byte("refused")}}, time.Hour),
			"delete": a.Delete(t.Context(), "deleted"),
		} {
			if !errors.Is(err, broken) {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(10 * time.Second)
		metatest.Want(t, a, "k", "refused")
		metatest.Want(t, a, "k2", "refused")
		metatest.WantAbsent(t, a, "deleted")
		store.Fail(nil, 0)
		metatest.Put(t, b, "k", "newer", 0)
		puts := store.Calls("put")
		time.Sleep(2 * time.Second)
		metatest.WantAbsent(t, a, "k")
		metatest.WantAbsent(t, a, "k2")
		metatest.WantAbsent(t, a, "deleted")
		metatest.Want(t, store, "k", "newer")
		metatest.WantAbsent(t, store, "k2")
		metatest.WantAbsent(t, store, "deleted") // a deletion cannot bring anything old back
		if leased(t, a, "k")() {
			t.Error("a lease on what the store refused")
		}
		if got := store.Calls("put"); got != puts {
			t.Errorf("%d refused writes were sent again", got-puts)
		}
		seen, err := meta.Reread(t.Context(), a, []string{"k", "k2"})
		if err != nil || !seen[0].Refused || string(seen[0].Value) != "newer" || !seen[1].Refused || seen[1].Found {
			t.Errorf("the store has %+v, %v", seen, err)
		}
		store.Fail(broken, 0) // what was dropped does not come back
		time.Sleep(2 * time.Second)
		metatest.WantAbsent(t, a, "k")
		store.Fail(nil, 0)
		metatest.Put(t, a, "k", "asked again", 0)
		metatest.Want(t, a, "k", "asked again")
		metatest.Put(t, b, "k", "newest", 0)
		time.Sleep(time.Second)
		metatest.Want(t, a, "k", "newest")
	})
}

// TestTagOfMirrorThatWasCutOff has a mirror without its store push a tag and ask about another,
// while a mirror with the store does the same. The facts of the latter stay.
func TestTagOfMirrorThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := metatest.NewMemory()
		wire := metatest.NewFaulty(memory)
		off, on := meta.NewTags(meta.NewCached(wire, meta.CachedOptions{}), meta.Options{}), meta.NewTags(meta.NewCached(memory, meta.CachedOptions{}), meta.Options{})
		get := func(tags *meta.Tags, accept string) digest.Digest {
			f, err := tags.Get(t.Context(), latest(accept))
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				t.Error(err)
			}
			return f.Digest
		}
		for _, accept := range []string{"oci", "docker"} {
			if err := set(t, off, latest(accept), meta.TagFact{Digest: one}, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, early, _ := off.Ask(t.Context(), latest("oci"))
		wire.Fail(errors.New("cut off"), 0)
		time.Sleep(2 * time.Second)
		_, during, _ := off.Ask(t.Context(), latest("oci"))
		if get(off, "oci") != one {
			t.Error("what is in memory does not help meanwhile")
		}
		three := digest.FromString("three")
		if err := pushed(t, on, latest("pushed"), meta.TagFact{Digest: two}); err != nil {
			t.Fatal(err)
		}
		if ok, err := off.Set(t.Context(), during, meta.TagFact{Digest: three}, 0); !ok || err == nil {
			t.Errorf("recorded without the store: %v, %v", ok, err)
		}
		if get(off, "oci") != three {
			t.Error("its own answer does not help meanwhile")
		}
		wire.Fail(nil, 0)
		for name, q := range map[string]meta.Question{"early": early, "during": during} {
			if ok, err := off.Set(t.Context(), q, meta.TagFact{Digest: three}, 0); ok || err != nil {
				t.Errorf("the answer to a question %s was recorded: %v, %v", name, ok, err)
			}
		}
		time.Sleep(time.Second)
		if got := get(off, "oci"); got != "" {
			t.Errorf("it still has %s", got)
		}
		for _, tags := range []*meta.Tags{on, off} {
			if got := get(tags, "pushed"); got != two {
				t.Errorf("the push became %q", got)
			}
		}

		// A push that the store refused makes all that is there doubtful. When the upstream has been
		// asked again, no mirror sees older facts.
		wire.Fail(errors.New("cut off"), 0)
		_ = pushed(t, off, latest("pushed"), meta.TagFact{Digest: three})
		if get(off, "pushed") != three {
			t.Error("the push is not visible where it was")
		}
		time.Sleep(2 * time.Second)
		wire.Fail(nil, 0)
		if got := get(off, "pushed"); got != "" {
			t.Errorf("the refused push is believed: %q", got)
		}
		facts, q, doubtful := off.Ask(t.Context(), latest("oci"), latest("pushed"))
		if !doubtful || facts[1] == nil || facts[1].Digest != two {
			t.Errorf("the store has %+v, doubtful: %v", facts, doubtful)
		}
		if ok, err := off.Set(t.Context(), q, meta.TagFact{Digest: three}, 0); !ok || err != nil {
			t.Errorf("not recorded: %v, %v", ok, err)
		}
		time.Sleep(time.Second)
		for _, tags := range []*meta.Tags{on, off} {
			if got := get(tags, "oci"); got != three {
				t.Errorf("the tag is %q", got)
			}
			if got := get(tags, "pushed"); got != "" {
				t.Errorf("the older push is still believed: %q", got)
			}
		}
	})
}

// slow lets a test stop a read between asking and answering.
type slow struct {
	meta.Store
	read, goOn chan struct{}
}

func (s *slow) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := s.Store.Get(ctx, key)
	s.read <- struct{}{}
	<-s.goOn
	return value, err
}

// TestFrontedOvertaken has a read that saw the old value end after a write.
func TestFrontedOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slow{metatest.NewMemory(), make(chan struct{}), make(chan struct{})}
		metatest.Put(t, store.Store, "k", "old", 0)
		front := meta.NewCached(store, meta.CachedOptions{Entries: 1})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = front.Get(t.Context(), "k")
		}()
		<-store.read
		metatest.Put(t, front, "k", "new", 0)
		store.goOn <- struct{}{}
		<-done
		metatest.Want(t, front, "k", "new")
	})
}

func TestFrontedHoldsNoBigValues(t *testing.T) {
	store, a, _ := shared()
	metatest.Put(t, a, "big", strings.Repeat("x", 1<<20), 0)
	for range 3 {
		metatest.Want(t, a, "big", strings.Repeat("x", 1<<20))
	}
	if got := store.Calls("get"); got != 3 {
		t.Errorf("the store was asked %d times, want 3", got)
	}
}

func TestGuardedCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewFaulty(metatest.NewMemory())
		var log bytes.Buffer
		guard := meta.NewGuarded(store, meta.GuardOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		metatest.WantAbsent(t, guard, "k")
		if !isAsked(guard) {
			t.Fatal("a new guard asks nothing")
		}
		broken := errors.New("connection refused")
		store.Fail(broken, time.Hour) // a host that swallows packets

		start := time.Now()
		for range 3 {
			if _, err := guard.Get(t.Context(), "k"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("hanging store: %v", err)
			}
		}
		if waited := time.Since(start); waited != 750*time.Millisecond {
			t.Errorf("three requests waited %v", waited)
		}
		if isAsked(guard) {
			t.Error("healthy after three failures")
		}
		asked := store.Calls("get")
		start = time.Now()
		for range 1000 {
			if _, err := guard.Get(t.Context(), "k"); !errors.Is(err, meta.ErrUnavailable) {
				t.Fatalf("open circuit: %v", err)
			}
			if err := guard.Put(t.Context(), "k", nil, 0); !errors.Is(err, meta.ErrUnavailable) {
				t.Fatalf("open circuit: %v", err)
			}
		}
		for _, err := range guard.Scan(t.Context(), "") {
			if !errors.Is(err, meta.ErrUnavailable) {
				t.Fatalf("open circuit: %v", err)
			}
		}
		if waited := time.Since(start); waited != 0 || store.Calls("get") != asked || store.Calls("scan") != 0 {
			t.Errorf("refused requests waited %v and asked %d times", waited, store.Calls("get")-asked)
		}

		// One request is the probe; the others do not wait for it.
		time.Sleep(5 * time.Second)
		probe := make(chan error)
		go func() { probe <- guard.Check(t.Context()) }()
		synctest.Wait()
		if _, err := guard.Get(t.Context(), "k"); !errors.Is(err, meta.ErrUnavailable) {
			t.Errorf("beside the probe: %v", err)
		}
		if err := <-probe; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("probe: %v", err)
		}
		if _, err := guard.Get(t.Context(), "k"); !errors.Is(err, meta.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the refusal does not say why: %v", err)
		}

		store.Fail(nil, 0)
		if err := guard.Check(t.Context()); !errors.Is(err, meta.ErrUnavailable) {
			t.Errorf("probed too early: %v", err)
		}
		time.Sleep(5 * time.Second)
		if err := guard.Check(t.Context()); err != nil || !isAsked(guard) {
			t.Errorf("after recovery: %v", err)
		}
		metatest.Put(t, guard, "k", "v", 0)
		metatest.Want(t, guard, "k", "v")
		if s := log.String(); strings.Count(s, "\n") != 2 || !strings.Contains(s, "level=WARN") || !strings.Contains(s, "level=INFO") {
			t.Errorf("an outage and its end were logged as\n%s", s)
		}
	})
}

// TestGuardedIgnoresLateResults ends a scan from before an outage while a probe is under way.
func TestGuardedIgnoresLateResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewFaulty(metatest.NewMemory())
		guard := meta.NewGuarded(store, meta.GuardOptions{Failures: 1})
		metatest.Put(t, guard, "k", "v", 0)
		probe := make(chan error, 1)
		for range guard.Scan(t.Context(), "") {
			store.Fail(nil, time.Hour)
			if err := guard.Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hanging store: %v", err)
			}
			time.Sleep(5 * time.Second)
			go func() { probe <- guard.Check(t.Context()) }()
			synctest.Wait()
		}
		if err := guard.Check(t.Context()); !errors.Is(err, meta.ErrUnavailable) {
			t.Errorf("beside the probe: %v", err)
		}
		if err := <-probe; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("probe: %v", err)
		}
	})
}

// TestGuardedScanIsNoProbe: a scan after an outage, which no timeout bounds, keeps no other request
// from the store.
func TestGuardedScanIsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewFaulty(metatest.NewMemory())
		guard := meta.NewGuarded(store, meta.GuardOptions{Failures: 1})
		metatest.Put(t, guard, "k", "v", 0)
		store.Fail(errors.New("broken"), 0)
		if err := guard.Check(t.Context()); err == nil || isAsked(guard) {
			t.Errorf("broken store: %v", err)
		}
		time.Sleep(5 * time.Second)
		for _, err := range guard.Scan(t.Context(), "") {
			if err == nil || store.Calls("scan") != 0 {
				t.Errorf("scan of a broken store: %v", err)
			}
		}
		store.Fail(nil, 0)
		time.Sleep(5 * time.Second)
		entries := 0
		for _, err := range guard.Scan(t.Context(), "") {
			if entries++; err != nil {
				t.Errorf("scan after the outage: %v", err)
			}
			metatest.Want(t, guard, "k", "v")
		}
		if entries != 1 || !isAsked(guard) {
			t.Errorf("%d entries after the outage", entries)
		}
	})
}

// TestGuardedIgnoresCallers checks that neither callers that leave nor answers of "not found" count
// as failures of the store.
func TestGuardedIgnoresCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewFaulty(metatest.NewMemory())
		guard := meta.NewGuarded(store, meta.GuardOptions{})
		store.Fail(nil, 100*time.Millisecond)
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if _, err := guard.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			cancel()
			metatest.WantAbsent(t, guard, "k")
		}
		if !isAsked(guard) {
			t.Error("callers broke the circuit")
		}
	})
}

func TestGuardedCounts(t *testing.T) {
	store := metatest.NewFaulty(metatest.NewMemory())
	guard := meta.NewGuarded(store, meta.GuardOptions{Failures: 2})
	metatest.Put(t, guard, "k", "v", 0)
	metatest.Want(t, guard, "k", "v")
	metatest.WantAbsent(t, guard, "none")
	store.Fail(errors.New("broken"), 0)
	for range 5 {
		_ = guard.Delete(t.Context(), "k")
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(guard.Collectors()...)
	want := `
		# HELP dray_meta_operations_total Operations on the metadata store, by outcome: ok, absent, error, refused (not sent, because the store had failed), cancelled.
		# TYPE dray_meta_operations_total counter
		dray_meta_operations_total{operation="delete",outcome="error"} 2
		dray_meta_operations_total{operation="delete",outcome="refused"} 3
		dray_meta_operations_total{operation="get",outcome="absent"} 1
		dray_meta_operations_total{operation="get",outcome="ok"} 1
		dray_meta_operations_total{operation="put",outcome="ok"} 1
		# HELP dray_meta_up 1 while dray uses the metadata store, 0 while it skips the store after a failure.
		# TYPE dray_meta_up gauge
		dray_meta_up 0
	`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "dray_meta_operations_total", "dray_meta_up"); err != nil {
		t.Error(err)
	}
}

// isAsked reports whether the guard asks its store, as its metric says.
func isAsked(g *meta.Guarded) bool {
	for _, c := range g.Collectors() {
		if up, ok := c.(prometheus.Gauge); ok {
			return testutil.ToFloat64(up) == 1
		}
	}
	return false
}

// TestFrontedRefusedLink: a fact that the store has is not hidden because the store refused to have
// it written once more. An older fact about a tag is, after a push whose epoch the store refused.
func TestFrontedRefusedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := metatest.NewMemory()
		wire := metatest.NewFaulty(memory)
		cached := meta.NewCached(wire, meta.CachedOptions{})
		links, tags := meta.NewVisibility(cached, meta.Options{}), meta.NewTags(cached, meta.Options{})
		blob := meta.Link{Digest: one, LinkFact: meta.LinkFact{Size: 9, Kind: meta.KindBlob}}
		if err := links.Add(t.Context(), "ecr", "team/app", blob); err != nil {
			t.Fatal(err)
		}
		if err := set(t, tags, latest("oci"), meta.TagFact{Digest: one}, 0); err != nil {
			t.Fatal(err)
		}
		wire.Fail(errors.New("full"), 0)
		blob.MediaType = "m"
		if links.Add(t.Context(), "ecr", "team/app", blob) == nil {
			t.Fatal("the store refused nothing")
		}
		_ = pushed(t, tags, latest("other"), meta.TagFact{Digest: two})
		wire.Fail(nil, 0)
		time.Sleep(2 * time.Second)
		for range 2 {
			if _, err := links.Get(t.Context(), "ecr", "team/app", one); err != nil {
				t.Errorf("the link is hidden: %v", err)
			}
			if f, err := tags.Get(t.Context(), latest("oci")); err == nil {
				t.Errorf("the tag is %s, as before the push", f.Digest)
			}
		}
	})
}
