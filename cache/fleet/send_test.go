package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dray/cache/fleet"
)

// send sends a request from one member to another.
func (m *member) send(to fleet.Member, method, path, body string) (*http.Response, error) {
	m.Helper()
	r := must(http.NewRequestWithContext(m.Context(), method, "http://dray"+path, strings.NewReader(body)))
	return m.Send(m.Context(), to, r)
}

// live returns a member as the store names it.
func live(m *member) fleet.Member { return m.Live()[0] }

// TestSend has a member send requests to another, which streams the answers.
func TestSend(t *testing.T) {
	all := several(t, lasting(), 2)
	sender, receiver := all[0], all[1]
	came, more := make(chan string, 1), make(chan bool)
	receiver.Handle("/echo/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 3)
		_, _ = io.ReadFull(r.Body, first)
		came <- string(first)
		rest, _ := io.ReadAll(r.Body)
		w.Header().Set("Seen", fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("Request-Id"), " ", fleet.Sender(r)))
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(first)
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = w.Write(rest)
	}))
	in, out := io.Pipe()
	go func() {
		_, _ = io.WriteString(out, "one")
		if first := <-came; first != "one" { // before there is more
			t.Errorf("first came %q", first)
		}
		_, _ = io.WriteString(out, "two")
		out.Close()
	}()
	r := must(http.NewRequestWithContext(t.Context(), http.MethodPut, "http://dray/echo/a%2Fb?c=d", in))
	r.Header.Set("Request-Id", "17")
	resp, err := sender.Send(t.Context(), live(receiver), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if seen := resp.Header.Get("Seen"); seen != "PUT /echo/a%2Fb?c=d 17 member 0" || resp.StatusCode != http.StatusTeapot {
		t.Errorf("%s, %s", resp.Status, seen)
	}
	first := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "one" {
		t.Errorf("the answer begins with %q, %v", first, err)
	}
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two" {
		t.Errorf("the answer ends with %q, %v", rest, err)
	}
	if r.URL.Host != "dray" || r.Header.Get("Dray-To") != "" {
		t.Errorf("the request was changed: %s, %v", r.URL, r.Header)
	}

	if _, err := sender.send(live(receiver), http.MethodGet, "/nothing", ""); err == nil || !strings.Contains(err.Error(), "does not know such requests") {
		t.Errorf("a path that nobody handles: %v", err)
	}
}

// TestSendRefused has requests that do not reach the member that they are for.
func TestSendRefused(t *testing.T) {
	leases := lasting()
	sender := start(t, leases, "sender", nil)
	var handled atomic.Int64
	receives := func(m *member) *member {
		m.Handle("/push/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) }))
		return m
	}
	receiver := receives(start(t, leases, "receiver", nil))
	far := receives(start(t, leases, "far", func(o *fleet.Options) { o.Self.Protocol = fleet.Protocol() + 2 }))
	unaware := live(far)
	unaware.Protocol = fleet.Protocol() // as in an entry that was written before the member was replaced
	stranger := receives(start(t, leases, "stranger", func(o *fleet.Options) { o.Keys = keysOf(t, "another secret of 32 characters.") }))
	former := live(receiver)
	former.ID = "former"
	dead := start(t, leases, "dead", nil)
	dead.down()
	for name, c := range map[string]struct {
		to   fleet.Member
		want string
	}{
		"another protocol":                      {live(far), "speaks another protocol"},
		"another protocol, which it has hidden": {unaware, "speaks another protocol"},
		"another member at its address":         {former, "another member answers at its address"},
		"another secret":                        {live(stranger), "does not know the secret"},
		"a dead member":                         {live(dead), "connect"},
	} {
		resp, err := sender.send(c.to, http.MethodPut, "/push/", "body")
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: %s", name, resp.Status)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.to.ID) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if handled.Load() != 0 {
		t.Errorf("%d requests were handled", handled.Load())
	}
	if n := receiver.value("dray_fleet_refused_total", "other"); n != 1 {
		t.Errorf("the member at the address of another counted %v requests", n)
	}
	if resp, err := sender.send(live(receiver), http.MethodPut, "/push/", "body"); err != nil || handled.Load() != 1 {
		t.Errorf("%v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
}

// TestSendEnds has the context of a request end before its answer.
func TestSendEnds(t *testing.T) {
	all := several(t, lasting(), 2)
	came, gone := make(chan bool, 1), make(chan bool, 1)
	all[1].Handle("/wait/", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- true
		<-r.Context().Done()
		gone <- true
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	_, err := all[0].Send(ctx, live(all[1]), must(http.NewRequest(http.MethodGet, "/wait/", nil)))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case <-gone:
	case <-time.After(2 * time.Minute):
		t.Error("the other member still works on the request")
	}
}

// TestHandle refuses handlers of the same paths.
func TestHandle(t *testing.T) {
	m := start(t, lasting(), "one", nil)
	m.Handle("/a/", http.NotFoundHandler())
	m.Handle("/b/", http.NotFoundHandler())
	for _, prefix := range []string{"/a/", "/a/b/", "/", "/blobs/"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was accepted", prefix)
				}
			}()
			m.Handle(prefix, http.NotFoundHandler())
		}()
	}
}
