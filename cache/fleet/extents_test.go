package fleet_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"dray/cache"
	"dray/cache/fleet"
)

// inParts runs a test with blobs that members fetch by one request, and in parts.
func inParts(t *testing.T, test func(t *testing.T, split bool)) {
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprint("parts=", split), func(t *testing.T) { test(t, split) })
	}
}

// tick has all members renew their leases, so that each knows all.
func tick(all ...*member) {
	for range 2 {
		for _, m := range all {
			m.Tick()
		}
	}
}

// holds waits until a member holds exactly these parts of a blob.
func (m *member) holds(r *registry, want ...cache.Extent) {
	m.Helper()
	var got []cache.Extent
	defer func() {
		if m.Failed() {
			m.Logf("%s holds %v, want %v", m.info.ID, got, want)
		}
	}()
	eventually(m.TB, "parts", func() bool {
		got, _, _ = m.cache.Extents(r.digest)
		return slices.Equal(got, want)
	})
}

// TestTakeoverAsksOthers kills a holder that has given three followers as much as they have, each
// another part. One takes over, and the registry is asked for what none of them holds, to the byte.
func TestTakeoverAsksOthers(t *testing.T) {
	inParts(t, func(t *testing.T, split bool) {
		leases, r := lasting(), newRegistry(4*mib)
		given := map[string]int{"member 0": mib + 5, "member 1": 2 * mib, "member 2": 3*mib - 7}
		kill := fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
			query := req.URL.Query()
			from := must(strconv.Atoi(query.Get("from")))
			begin(w, 4*mib, 5)
			w.Header().Set("Content-Length", strconv.Itoa(4*mib-from))
			end := given[req.Header.Get("Dray-Member")]
			if to := query.Get("to"); to != "" { // a range that a reader waits for
				end = must(strconv.Atoi(to))
				w.Header().Set("Content-Length", strconv.Itoa(end-from))
			}
			_, _ = w.Write(r.blob[from:end])
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		})
		all := several(t, leases, 3)
		tick(all...)
		var pulls []*pull
		for _, m := range all {
			m.split = split
			pulls = append(pulls, m.pull(r))
			m.holds(r, cache.Extent{To: int64(given[m.info.ID])})
		}
		nobody := int64(mib + 7)
		if split {
			far := must(all[0].get(t.Context(), r))
			defer far.Close()
			must(far.Seek(3*mib+pieceSize, io.SeekStart))
			far.Until(3*mib + 2*pieceSize)
			if _, err := io.ReadFull(far, make([]byte, pieceSize)); err != nil {
				t.Fatal(err)
			}
			all[0].holds(r, cache.Extent{To: mib + 5}, cache.Extent{From: 3*mib + pieceSize, To: 3*mib + 2*pieceSize})
			nobody -= pieceSize
		}
		r.openAll()
		kill()
		for _, p := range pulls {
			p.ends()
		}
		if sent := r.sent.Load(); sent != nobody || !split && r.asked.Load() != 1 {
			t.Errorf("the registry was asked %d times and sent %d bytes, of which nobody held %d", r.asked.Load(), sent, nobody)
		}
		takeovers := 0.0
		for _, m := range all {
			takeovers += m.value("dray_fleet_takeovers_total", "")
		}
		if takeovers != 1 {
			t.Errorf("%v members took over", takeovers)
		}
	})
}

// TestBrokenStream has the stream of a holder break that is alive. The follower connects again. If
// that stream breaks, too, the holder counts as failed.
func TestBrokenStream(t *testing.T) {
	for breaks, takeovers := range map[int64]float64{1: 0, 2: 1} {
		leases, r := lasting(), newRegistry(mib)
		r.openAll()
		var asked atomic.Int64
		fake(t, leases, r.digest, true, func(w http.ResponseWriter, req *http.Request) {
			from := must(strconv.Atoi(req.URL.Query().Get("from")))
			begin(w, mib, 5)
			w.Header().Set("Content-Length", strconv.Itoa(mib-from))
			if asked.Add(1) <= breaks {
				_, _ = w.Write(r.blob[from : from+mib/4])
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(r.blob[from:])
		})
		m := start(t, leases, "one", nil)
		m.pull(r).ends()
		if n := m.value("dray_fleet_takeovers_total", ""); n != takeovers || r.sent.Load() != int64(takeovers)*mib/2 {
			t.Errorf("after %d breaks, %v members took over, and the registry sent %d bytes", breaks, n, r.sent.Load())
		}
	}
}

// TestSlowMember has a holder that has much more than its stream brings. Its follower goes to
// another follower.
func TestSlowMember(t *testing.T) {
	leases, r := lasting(), newRegistry(8*mib)
	r.openAll()
	other := start(t, lasting(), "other", nil)
	other.pull(r).ends()
	asked := r.asked.Load()
	fake(t, leases, r.digest, false, func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Method == http.MethodHead:
			w.Header().Set("Dray-Protocol", "1")
			w.Header().Set("Dray-Ready", strconv.Itoa(5*mib))
		case req.Header.Get("Dray-Tried") != "":
			w.Header().Set("Dray-Protocol", "1")
			w.Header().Set("Dray-Followers", other.info.Address)
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			begin(w, 8*mib, 5)
			_, _ = w.Write(r.blob[:mib])
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		}
	})
	m := start(t, leases, "one", nil)
	m.pull(r).ends()
	if n := m.value("dray_fleet_takeovers_total", ""); n != 0 || r.asked.Load() != asked {
		t.Errorf("%v members took over, and the registry was asked %d times more", n, r.asked.Load()-asked)
	}
}

// TestRangeAtFollower has a client of a follower read a range that nobody has yet. It gets it while
// all streams stand before it. Every byte goes once from the registry to the holder, and once from
// there to the follower.
func TestRangeAtFollower(t *testing.T) {
	all := several(t, lasting(), 2)
	r := newRegistry(4 * mib)
	r.also = 3 * mib
	r.open(mib)
	var pulls []*pull
	for _, m := range all {
		m.split = true
		p := m.pull(r)
		p.reaches(mib / 2)
		pulls = append(pulls, p)
	}
	far := must(all[1].get(t.Context(), r))
	defer far.Close()
	must(far.Seek(3*mib+17, io.SeekStart))
	far.Until(3*mib + 1000)
	got := make([]byte, 1000-17)
	if _, err := io.ReadFull(far, got); err != nil || !slices.Equal(got, r.blob[3*mib+17:3*mib+1000]) {
		t.Fatal("wrong range", err)
	}
	if parts, _, _ := all[1].cache.Extents(r.digest); parts[0].To > mib {
		t.Errorf("the follower holds %v", parts)
	}
	r.openAll()
	for _, p := range pulls {
		p.ends()
	}
	if n := all[1].value("dray_fleet_received_bytes_total", "same"); n != 4*mib || r.sent.Load() != 4*mib {
		t.Errorf("the registry sent %d bytes, and the follower got %v", r.sent.Load(), n)
	}
}

// inZones starts members in zones, n in each.
func inZones(t *testing.T, leases fleet.Leases, n int, zones ...string) (all []*member) {
	for i := range n {
		for _, zone := range zones {
			all = append(all, start(t, leases, fmt.Sprint(zone, i), func(o *fleet.Options) { o.Self.Zone = zone }))
		}
	}
	tick(all...)
	return all
}

// crossed returns how many bytes went from one zone to another.
func crossed(all []*member) (n float64) {
	for _, m := range all {
		n += m.value("dray_fleet_received_bytes_total", "other")
	}
	return n
}

// TestZones has clients of members in three zones read a cold blob. It goes to each other zone
// once, and stays there for members that ask later.
func TestZones(t *testing.T) {
	inParts(t, func(t *testing.T, split bool) {
		all := inZones(t, lasting(), 4, "a", "b", "c")
		r := newRegistry(2*mib + 3)
		r.open(mib)
		var pulls []*pull
		for i, m := range all {
			m.split = split
			if i >= 9 { // after the fetch
				continue
			}
			p := m.pull(r)
			pulls = append(pulls, p)
			if i == 0 {
				p.reaches(mib / 2)
			}
		}
		for _, p := range pulls {
			p.reaches(mib / 2)
		}
		r.openAll()
		for _, p := range pulls {
			p.ends()
		}
		for _, m := range all[9:] {
			m.pull(r).ends()
		}
		if n := crossed(all); n != 2*float64(len(r.blob)) || r.sent.Load() != int64(len(r.blob)) {
			t.Errorf("%v bytes of %d went from one zone to another, and the registry sent %d", n, len(r.blob), r.sent.Load())
		}
	})
}

// TestZoneReaderDies kills the member that reads for its zone. Another one takes its place.
func TestZoneReaderDies(t *testing.T) {
	all := inZones(t, lasting(), 3, "a", "b")
	r := newRegistry(2 * mib)
	r.open(mib)
	var pulls []*pull
	for _, m := range []*member{all[0], all[1], all[3], all[5]} { // a0, b0, b1, b2
		p := m.pull(r)
		p.reaches(mib / 2)
		m.holds(r, cache.Extent{To: mib})
		pulls = append(pulls, p)
	}
	all[1].down()
	eventually(t, "one other reader", func() bool {
		return all[0].value("dray_fleet_followers", "") == 2 && all[3].value("dray_fleet_followers", "")+all[5].value("dray_fleet_followers", "") == 1
	})
	r.openAll()
	for _, p := range pulls {
		p.ends()
	}
	// The dead member's fetch goes on in this process, so its half crosses, too.
	if n := crossed(all); n != 3*mib || r.sent.Load() != 2*mib {
		t.Errorf("%v bytes went from one zone to another, and the registry sent %d", n, r.sent.Load())
	}
}

// TestLongAgo has members ask for a blob that another member of the zone has fetched so long ago
// that nobody shows it any more.
func TestLongAgo(t *testing.T) {
	leases := lasting()
	all := inZones(t, leases, 2, "a", "b")
	r := newRegistry(mib)
	r.openAll()
	all[0].pull(r).ends()
	forget := func() {
		l := must(leases.Take(t.Context(), r.digest, fleet.Member{ID: "nobody"}, 0))
		if err := leases.Release(t.Context(), []fleet.Lease{l}); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	all[2].pull(r).ends()
	if n := all[2].value("dray_fleet_questions_total", ""); n != 1 || r.asked.Load() != 1 {
		t.Errorf("%v questions, and the registry was asked %d times", n, r.asked.Load())
	}
	forget()
	all[1].pull(r).ends() // of the other zone: nobody there has it
	if n := all[1].value("dray_fleet_questions_total", ""); n != 1 || r.asked.Load() != 2 || crossed(all) != 0 {
		t.Errorf("%v questions, the registry was asked %d times, and %v bytes crossed", n, r.asked.Load(), crossed(all))
	}
}

// TestQuestions counts the questions to others before a blob is fetched that nobody has: one to
// each member of the zone, and no more than 16. Nobody waits for one that does not answer.
func TestQuestions(t *testing.T) {
	for n, want := range map[int]float64{1: 0, 3: 2, 20: 16} {
		leases, r := lasting(), newRegistry(1000)
		r.openAll()
		m := start(t, leases, "one", func(o *fleet.Options) { o.Patience.Presence = time.Millisecond })
		for i := range n - 1 {
			other := fleet.Member{ID: fmt.Sprint("silent ", i), Address: "127.0.0.1:1", Protocol: 1}
			if _, err := leases.Renew(t.Context(), other, nil); err != nil {
				t.Fatal(err)
			}
		}
		m.Tick()
		m.pull(r).ends()
		if got := m.value("dray_fleet_questions_total", ""); got != want || r.asked.Load() != 1 {
			t.Errorf("%d members: %v questions, want %v; the registry was asked %d times", n, got, want, r.asked.Load())
		}
	}
}

// TestBucket has a blob that others have finished read from the bucket, if that has it, and one
// that is on its way from the member that fetches it.
func TestBucket(t *testing.T) {
	inParts(t, func(t *testing.T, split bool) {
		all := several(t, lasting(), 4)
		tick(all...)
		r := newRegistry(mib)
		b := &bucket{registry: newRegistry(mib)}
		b.openAll()
		for _, m := range all {
			m.split, m.bucket = split, b
		}
		r.open(mib / 2)
		first := all[0].pull(r)
		first.reaches(mib / 4)
		second := all[1].pull(r)
		second.reaches(mib / 4)
		r.openAll()
		first.ends()
		second.ends()
		received := func() (n float64) {
			for _, m := range all {
				n += m.value("dray_fleet_received_bytes_total", "")
			}
			return n
		}
		if received() != mib || b.sent.Load() != 0 {
			t.Errorf("on its way: %v bytes from members, %d from the bucket", received(), b.sent.Load())
		}
		all[2].pull(r).ends() // the bucket does not have it yet
		if received() != 2*mib || b.sent.Load() != 0 {
			t.Errorf("before it is in the bucket: %v bytes from members, %d from the bucket", received(), b.sent.Load())
		}
		b.holds.Store(true)
		all[3].pull(r).ends()
		if received() != 2*mib || b.sent.Load() != mib || r.sent.Load() != mib {
			t.Errorf("in the bucket: %v bytes from members, %d from the bucket, %d from the registry", received(), b.sent.Load(), r.sent.Load())
		}
		for _, m := range all {
			if n := m.value("dray_fleet_questions_total", ""); n != 0 {
				t.Errorf("%s asked %v questions", m.info.ID, n)
			}
		}
	})
}
