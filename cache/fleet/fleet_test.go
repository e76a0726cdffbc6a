package fleet_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"dray/cache/fleet"
)

// TestOneFetch has clients of all members read a blob while it arrives. The registry is asked once,
// and each client has bytes before the registry has sent the rest.
func TestOneFetch(t *testing.T) {
	for _, n := range []int{2, 5} {
		r := newRegistry(3*mib + 17)
		var pulls []*pull
		for _, m := range several(t, lasting(), n) {
			pulls = append(pulls, m.pull(r), m.pull(r))
		}
		for at := int64(0); at < 3*mib; at += mib {
			r.open(at + mib)
			for _, p := range pulls {
				p.reaches(at + mib/2)
			}
		}
		r.openAll()
		for _, p := range pulls {
			p.ends()
		}
		if sent := r.sent.Load(); sent != int64(len(r.blob)) || r.asked.Load() != 1 {
			t.Errorf("%d members: the registry was asked %d times and sent %d bytes of %d", n, r.asked.Load(), sent, len(r.blob))
		}
	}
}

// TestFinished has a member ask for a blob that another one has fetched a while ago.
func TestFinished(t *testing.T) {
	leases := lasting()
	all := several(t, leases, 2)
	r := newRegistry(mib)
	r.openAll()
	all[0].pull(r).ends()
	all[0].Tick()
	all[1].pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
	if n := all[1].value("dray_fleet_received_bytes_total", "same"); n != mib {
		t.Errorf("%v bytes were counted", n)
	}
	if err := all[0].cache.Delete(t.Context(), r.digest); err != nil {
		t.Fatal(err)
	}
	all[0].Tick() // gives the lease up
	if n := all[0].value("dray_fleet_leases", ""); n != 0 {
		t.Errorf("%v leases of blobs that are gone", n)
	}
	third := start(t, leases, "third", nil)
	third.pull(r).ends()
	if r.asked.Load() != 2 || third.value("dray_fleet_takeovers_total", "") != 0 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestManyConnections has other members keep many connections that they do not use. The holder
// still answers.
func TestManyConnections(t *testing.T) {
	leases, r := lasting(), newRegistry(mib)
	r.openAll()
	holder := start(t, leases, "holder", nil)
	holder.pull(r).ends()
	settings := fleet.ClientTLS(keysOf(t, secret))
	for range 200 {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", holder.info.Address, settings)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "HEAD /blobs/%s?from=0 HTTP/1.1\r\nHost: holder\r\nDray-Protocol: 1\r\n\r\n", r.digest); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodHead})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	start(t, leases, "follower", nil).pull(r).ends()
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestManyFollowers has more followers than one member serves. The others read from followers.
func TestManyFollowers(t *testing.T) {
	all := several(t, lasting(), 12)
	r := newRegistry(mib)
	r.open(mib / 2)
	holder := all[0].pull(r)
	holder.reaches(mib / 4)
	var pulls []*pull
	for _, m := range all[1:] {
		p := m.pull(r)
		p.reaches(mib / 4)
		pulls = append(pulls, p)
	}
	if n := all[0].value("dray_fleet_followers", ""); n != 8 {
		t.Errorf("the holder has %v followers", n)
	}
	r.openAll()
	for _, p := range append(pulls, holder) {
		p.ends()
	}
	if r.asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", r.asked.Load())
	}
}

// TestProtocols has members whose protocols differ by one, and by two.
func TestProtocols(t *testing.T) {
	for protocol, together := range map[int]bool{1: true, 2: true, 3: false} {
		leases, r := lasting(), newRegistry(mib)
		r.openAll()
		one := start(t, leases, "one", nil)
		other := start(t, leases, "other", func(o *fleet.Options) { o.Self.Protocol = protocol })
		one.pull(r).ends()
		other.pull(r).ends()
		if asked := r.asked.Load(); together != (asked == 1) {
			t.Errorf("protocols 1 and %d: the registry was asked %d times", protocol, asked)
		}
		if n := other.value("dray_fleet_alone_total", "protocol"); together != (n == 0) {
			t.Errorf("protocols 1 and %d: %v fetches without others", protocol, n)
		}
	}
}

// TestGrace has a member stop while another one reads from it, and does not get to the end.
func TestGrace(t *testing.T) {
	r := newRegistry(mib)
	r.open(mib / 2)
	m := start(t, lasting(), "one", func(o *fleet.Options) { o.Grace = time.Millisecond })
	m.pull(r).reaches(mib / 4)
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- m.Serve(ctx, ln) }()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://%s/blobs/%s?from=0", ln.Addr(), r.digest), nil))
	req.Header.Set("Dray-Protocol", "1")
	resp := must(m.Client().Do(req))
	defer resp.Body.Close()
	began := time.Now()
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= 30*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= mib {
		t.Errorf("the other member got %d bytes, %v", n, err)
	}
	r.openAll()
}
