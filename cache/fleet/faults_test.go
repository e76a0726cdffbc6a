package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/fleet"
)

// TestHolderDies kills the holder in the middle of a blob. The registry is asked for the rest
// alone, by one of the others.
func TestHolderDies(t *testing.T) {
	all := several(t, lasting(), 3)
	r := newRegistry(4 * mib)
	r.open(2 * mib)
	all[0].pull(r)
	eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	followers := []*pull{all[1].pull(r), all[2].pull(r)}
	for _, p := range followers {
		p.reaches(2*mib - 64<<10) // a reader lags behind by the step of waking at most
	}
	all[0].down()
	eventually(t, "second request", func() bool { return r.asked.Load() == 2 })
	r.openAll()
	for _, p := range followers {
		p.ends()
	}
	holders := all[1].value("dray_fleet_takeovers_total", "") + all[2].value("dray_fleet_takeovers_total", "")
	if holders != 1 || r.asked.Load() != 2 {
		t.Errorf("%v members took over, and the registry was asked %d times", holders, r.asked.Load())
	}
	// The dead member's fetch goes on in this process, so the registry sends it the second half, too.
	if sent := r.sent.Load(); sent > 6*mib+256<<10 {
		t.Errorf("the registry sent %d bytes", sent)
	}
}

// TestSlowRegistry has the registry pause for much longer than a stream may stand. The holder says
// that it has no more, so nobody leaves it.
func TestSlowRegistry(t *testing.T) {
	all := several(t, lasting(), 2)
	r := newRegistry(2 * mib)
	r.open(mib)
	holder := all[0].pull(r)
	holder.reaches(mib / 2)
	follower := all[1].pull(r)
	follower.reaches(mib / 2)
	time.Sleep(10 * patient.Stall)
	r.openAll()
	holder.ends()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestSilent has a member that accepts connections and says nothing, as when its process is
// stopped, its machine has lost its network, or it hangs in the middle of a blob.
func TestSilent(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				<-r.Context().Done()
			}
			begin(w, mib, 5)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"lost the blob": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Dray-Protocol", "1")
			w.WriteHeader(http.StatusNotFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			leases, r := lasting(), newRegistry(mib)
			r.openAll()
			fake(t, leases, r.digest, false, answer)
			m := start(t, leases, "one", func(o *fleet.Options) { o.Patience.Answer = 20 * time.Millisecond })
			m.pull(r).ends()
			if r.asked.Load() != 1 || m.value("dray_fleet_takeovers_total", "") != 1 {
				t.Errorf("the registry was asked %d times", r.asked.Load())
			}
		})
	}
}

// TestSlowHolder has a holder that is alive, and whose fetch has not begun. A member waits for it a
// moment, and then fetches for itself without blaming it.
func TestSlowHolder(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m := start(t, leases, "one", func(o *fleet.Options) { o.Patience.Begin = 20 * time.Millisecond })
	p := m.pull(r)
	eventually(t, "request", func() bool { return r.asked.Load() == 1 })
	p.ends()
	if late, taken := m.value("dray_fleet_alone_total", "late"), m.value("dray_fleet_takeovers_total", ""); late != 1 || taken != 0 {
		t.Errorf("%v late fetches, and %v leases were taken over", late, taken)
	}
	if l := must(leases.Take(t.Context(), r.digest, m.info, 0)); l.Holder != "fake" {
		t.Errorf("the lease is that of %s", l.Holder)
	}
}

// TestTakeover has a member that takes over answer once as the follower that it was. Others do not
// take the lease from it.
func TestTakeover(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.openAll()
	var asked atomic.Int64
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		from := must(strconv.Atoi(req.URL.Query().Get("from")))
		n := asked.Add(1)
		begin(w, mib, []int64{5, 5, 6}[n-1])
		w.Header().Set("Content-Length", strconv.Itoa(mib-from))
		switch n {
		case 1: // the holder dies
			_, _ = w.Write(r.blob[:mib/2])
			must(leases.Take(context.Background(), r.digest, fleet.Member{ID: "fake", Address: req.Host}, 0))
			panic(http.ErrAbortHandler)
		case 2:
			w.Header().Set("Dray-Hop", "1")
		}
		_, _ = w.Write(r.blob[from:])
	})
	m := start(t, leases, "one", nil)
	m.pull(r).ends()
	if n := m.value("dray_fleet_takeovers_total", ""); n != 0 || asked.Load() != 3 || r.asked.Load() != 0 {
		t.Errorf("%v leases were taken over, after %d questions, and the registry was asked %d times", n, asked.Load(), r.asked.Load())
	}
}

// begin writes the header of an answer of a blob.
func begin(w http.ResponseWriter, size int, generation int64) {
	h := w.Header()
	h.Set("Dray-Protocol", "1")
	h.Set("Dray-Member", "fake")
	h.Set("Dray-Generation", strconv.FormatInt(generation, 10))
	h.Set("Dray-Hop", "0")
	h.Set("Dray-Size", strconv.Itoa(size))
	h.Set("Content-Length", strconv.Itoa(size))
}

// fake is a member that knows the secret, holds the lease of a blob, and answers as the test says.
// If it is alive, it says that it has no more bytes than it has sent. Its result ends it.
func fake(t *testing.T, leases fleet.Leases, d digest.Digest, alive bool, answer http.HandlerFunc) (kill func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && alive {
			w.Header().Set("Dray-Ready", "0")
			return
		}
		answer(w, r)
	}), TLSConfig: fleet.ServerTLS(keysOf(t, secret))}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(ln, "", "") }()
	kill = sync.OnceFunc(func() { s.Close(); <-done })
	t.Cleanup(kill)
	if _, err := leases.Take(t.Context(), d, fleet.Member{ID: "fake", Address: ln.Addr().String()}, 0); err != nil {
		t.Fatal(err)
	}
	return kill
}

// TestWrongBytes has a member give bytes that are not the blob. They are nobody's blob, the member
// is banned, and the next fetch is from the registry alone.
func TestWrongBytes(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		begin(w, mib, 5)
		_, _ = w.Write(make([]byte, mib))
	})
	m := start(t, leases, "one", nil)
	late := must(m.get(t.Context(), r)) // a client that has read nothing when the bytes are known to be wrong
	defer late.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(must(m.get(t.Context(), r))); !errors.Is(err, cache.ErrCorrupt) && !bytes.Equal(got.Bytes(), r.blob) {
		t.Fatalf("wrong bytes end with %v", err)
	}
	if n := m.value("dray_fleet_bans_total", ""); n != 1 {
		t.Errorf("%v members are banned", n)
	}
	if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, r.blob) {
		t.Errorf("the late client got %d bytes, %v", len(got), err)
	}
	m.pull(r).ends()
	if r.asked.Load() != 1 || m.value("dray_fleet_alone_total", "digest") != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
	other := newRegistry(mib + 1) // another blob that the banned member says to have
	other.openAll()
	if _, err := leases.Take(t.Context(), other.digest, fleet.Member{ID: "fake", Address: "127.0.0.1:1"}, 0); err != nil {
		t.Fatal(err)
	}
	m.pull(other).ends()
	if other.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times for another blob", other.asked.Load())
	}
}

// TestOneBlames has bytes of a member and of the registry make a wrong blob: who is wrong is not
// known, so nobody is banned.
func TestOneBlames(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.openAll()
	fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Query().Get("from") != "0" {
			http.NotFound(w, req) // it has lost the blob
			return
		}
		begin(w, mib, 5)
		_, _ = w.Write(make([]byte, mib/2))
		panic(http.ErrAbortHandler)
	})
	m := start(t, leases, "one", nil)
	var got bytes.Buffer
	if _, err := got.ReadFrom(must(m.get(t.Context(), r))); !errors.Is(err, cache.ErrCorrupt) && !bytes.Equal(got.Bytes(), r.blob) {
		t.Fatalf("wrong bytes end with %v", err)
	}
	if n := m.value("dray_fleet_bans_total", ""); n != 0 {
		t.Errorf("%v members are banned", n)
	}
	m.pull(r).ends()
}

// TestLeftHolder has all clients of the holder leave. A follower still gets the blob.
func TestLeftHolder(t *testing.T) {
	all := several(t, lasting(), 2)
	r := newRegistry(mib)
	r.open(mib / 2)
	ctx, leave := context.WithCancel(t.Context())
	client := must(all[0].get(ctx, r))
	follower := all[1].pull(r)
	follower.reaches(mib / 4)
	leave()
	client.Close()
	r.openAll()
	follower.ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestRefused has the registry refuse the holder. That is no answer for another member.
func TestRefused(t *testing.T) {
	all := several(t, lasting(), 2)
	r := newRegistry(mib)
	r.openAll()
	share := all[0].Share(r.digest, false)
	asked, refuse := make(chan struct{}), make(chan struct{})
	refused := make(chan error, 1)
	go func() {
		_, err := all[0].cache.Open(t.Context(), cache.Blob{Digest: r.digest, Size: mib, Observer: observer{share}}, func(ctx context.Context, from int64) (cache.Stream, error) {
			if s, _, err := share.Open(ctx, fleet.Want{From: from, Most: mib}); err == nil {
				return s, nil
			}
			close(asked)
			<-refuse
			return cache.Stream{}, errors.New("denied")
		})
		refused <- err
	}()
	<-asked
	follower := all[1].pull(r)
	eventually(t, "follower", func() bool { return all[0].value("dray_fleet_followers", "") == 1 })
	close(refuse)
	if err := <-refused; err == nil {
		t.Error("the refusal was lost")
	}
	follower.ends()
}
