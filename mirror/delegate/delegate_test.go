package delegate_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/mirror/delegate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is a member of a fleet, which answers questions by a function.
type member struct {
	*delegate.Delegate
	fleet *fleet.Fleet
	cache *cache.Cache
}

// patient never takes a slow machine for a dead member.
var patient = fleet.Patience{Dial: time.Minute, Begin: time.Minute, Store: time.Minute, Answer: time.Minute, Silence: time.Minute}

type answering = func(context.Context, delegate.Question) delegate.Answer

// join starts a member whose upstream has a name of its own. The ID is a letter that makes it the
// member that is asked for some references.
func join(t *testing.T, leases fleet.Leases, id string, patience fleet.Patience, answer answering) *member {
	t.Helper()
	dir, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fleet.ParseKeys([]byte(strings.Repeat("a secret of the fleet ", 2)))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{cache: cache.New(cache.Options{Disk: dir})}
	m.fleet = fleet.New(fleet.Options{
		Self: fleet.Member{ID: id, Address: ln.Addr().String()}, Leases: leases, Cache: m.cache, Keys: func() *fleet.Keys { return keys }, Patience: patience,
		Upstreams: func() fleet.Upstreams {
			return fleet.NewUpstreams([]fleet.Upstream{{Name: "registry of " + id, Identity: "registry"}, {Name: "own of " + id, Identity: "own " + id}})
		},
	})
	m.Delegate = delegate.New(m.fleet, slog.New(slog.DiscardHandler), answer)
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = m.cache.Run(ctx) })
	runs.Go(func() { _ = m.fleet.Run(ctx) })
	runs.Go(func() {
		if err := m.fleet.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); m.fleet.Interrupt(); runs.Wait(); m.cache.Close(); _ = dir.Close() })
	return m
}

// knows waits until a member knows that n are alive.
func (m *member) knows(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(m.fleet.Live()) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the members do not find each other")
		}
	}
}

// question returns a question of a that b is to answer.
func question(t *testing.T, a *member) delegate.Question {
	t.Helper()
	for c := 'a'; c <= 'z'; c++ {
		q := delegate.Question{Upstream: "registry of a", Repository: "team/app", Reference: "v" + string(c), Accept: []string{"x"}}
		if !a.Here(q) {
			return q
		}
	}
	t.Fatal("b is asked for nothing")
	return delegate.Question{}
}

func TestAsk(t *testing.T) {
	raw := []byte("a manifest")
	good := delegate.Answer{Answered: true, Digest: digest.FromBytes(raw), Data: raw}
	for name, c := range map[string]struct {
		patience fleet.Patience
		answer   answering
		ok       bool
	}{
		"answers":  {patient, func(context.Context, delegate.Question) delegate.Answer { return good }, true},
		"has none": {patient, func(context.Context, delegate.Question) delegate.Answer { return delegate.Answer{Answered: true} }, true},
		"fails":    {patient, func(context.Context, delegate.Question) delegate.Answer { return delegate.Answer{} }, false},
		"wrong digest": {patient, func(context.Context, delegate.Question) delegate.Answer {
			return delegate.Answer{Answered: true, Digest: good.Digest, Data: []byte("other")}
		}, false},
		"no digest": {patient, func(context.Context, delegate.Question) delegate.Answer {
			return delegate.Answer{Answered: true, Digest: "x", Data: raw}
		}, false},
		"never ends": {fleet.Patience{Dial: time.Minute, Store: time.Minute, Silence: time.Minute, Begin: 5 * time.Second}, func(ctx context.Context, _ delegate.Question) delegate.Answer {
			<-ctx.Done()
			return good
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			leases := &fleettest.Memory{}
			var mu sync.Mutex
			var asked []delegate.Question
			join(t, leases, "b", patient, func(ctx context.Context, q delegate.Question) delegate.Answer {
				mu.Lock()
				asked = append(asked, q)
				mu.Unlock()
				return c.answer(ctx, q)
			}).knows(t, 1)
			a := join(t, leases, "a", c.patience, nil)
			a.knows(t, 2)
			q := question(t, a)
			got, ok := a.Ask(t.Context(), q)
			if ok != c.ok || ok && got.Digest != "" && string(got.Data) != string(raw) {
				t.Errorf("got %+v, %v", got, ok)
			}
			mu.Lock()
			defer mu.Unlock()
			q.Upstream = "registry of b"
			if len(asked) != 1 || asked[0].Upstream != q.Upstream || asked[0].Reference != q.Reference || !slices.Equal(asked[0].Accept, q.Accept) {
				t.Errorf("b was asked %+v, want %+v", asked, q)
			}
		})
	}
}

// TestAskSlowly has an answer that takes many times as long as a member may be silent.
func TestAskSlowly(t *testing.T) {
	leases := &fleettest.Memory{}
	quick := patient
	quick.Silence = 3 * time.Millisecond // b says every millisecond that it is alive
	var signs sync.WaitGroup
	join(t, leases, "b", quick, func(context.Context, delegate.Question) delegate.Answer {
		signs.Wait()
		return delegate.Answer{Answered: true}
	}).knows(t, 1)
	a := join(t, leases, "a", patient, nil)
	a.knows(t, 2)
	signs.Add(1)
	time.AfterFunc(50*time.Millisecond, signs.Done)
	if _, ok := a.Ask(t.Context(), question(t, a)); !ok {
		t.Error("the signs of life are taken for an answer")
	}
}

// TestAskNobody has members that share nothing with others, or are gone.
func TestAskNobody(t *testing.T) {
	var none *delegate.Delegate
	if _, ok := none.Ask(t.Context(), delegate.Question{}); ok || !none.Here(delegate.Question{}) || none.Bytes(t.Context(), "x", "y", 1) != nil {
		t.Error("without a fleet somebody answers")
	}
	leases := &fleettest.Memory{}
	gone := fleet.Member{ID: "gone", Address: "127.0.0.1:1", Protocol: fleet.Protocol(), Upstreams: fleet.NewUpstreams([]fleet.Upstream{{Name: "x", Identity: "registry"}})}
	if _, err := leases.Renew(t.Context(), gone, nil); err != nil {
		t.Fatal(err)
	}
	a := join(t, leases, "a", patient, nil)
	a.knows(t, 2)
	for _, upstream := range []string{"own of a", "unknown"} {
		for c := 'a'; c <= 'z'; c++ {
			if !a.Here(delegate.Question{Upstream: upstream, Repository: "r", Reference: string(c)}) {
				t.Fatalf("another member is asked about %q", upstream)
			}
		}
	}
	if _, ok := a.Ask(t.Context(), question(t, a)); ok {
		t.Error("a member that is gone has answered")
	}
}

// TestBytes has one of two members hold a manifest.
func TestBytes(t *testing.T) {
	leases := &fleettest.Memory{}
	join(t, leases, "b", patient, nil)
	c := join(t, leases, "c", patient, nil)
	a := join(t, leases, "a", patient, nil)
	a.knows(t, 3)
	raw := []byte("a manifest that only c holds")
	d := digest.FromBytes(raw)
	if err := c.cache.Put(t.Context(), cache.Blob{Digest: d, Size: int64(len(raw))}, raw); err != nil {
		t.Fatal(err)
	}
	for what, most := range map[string]int64{"held": int64(len(raw)), "too large": int64(len(raw)) - 1} {
		if got := a.Bytes(t.Context(), "registry of a", d, most); (string(got) == string(raw)) != (what == "held") {
			t.Errorf("%s: %q", what, got)
		}
	}
	if got := a.Bytes(t.Context(), "registry of a", digest.FromString("unknown"), 100); got != nil {
		t.Errorf("nobody has %q", got)
	}
	if got := a.Bytes(t.Context(), "own of a", d, 100); got != nil {
		t.Errorf("of an upstream that others do not have: %q", got)
	}
}
