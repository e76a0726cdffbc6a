package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"dray/upstream/ecrtest"
)

// startVersions starts a fleet of two members. The protocol of the second one is so many numbers
// ahead.
func startVersions(t *testing.T, numbers int) *fleetWorld {
	t.Helper()
	ecr := ecrtest.Start(t, ecrtest.Options{})
	ecr.CreateRepository("team/app")
	programs := []string{built.dray, drayAhead(t, numbers)}
	w := newFleet(t, fleetOptions{members: 2, pushTo: ecr, program: func(i int) string { return programs[i] }})
	for i := range w.members {
		if !w.eventually("two members", func() bool { return len(w.report(i).Members) == 2 }) {
			t.Fatal("the members do not find each other")
		}
	}
	return w
}

// reported is what dray fleet says of a member.
type reported struct {
	ID       string
	Address  string
	Protocol int
	Failure  string
	State    map[string]any // nil if the member did not answer
}

// report is what dray fleet says at a member.
func (w *fleetWorld) report(i int) (all struct{ Members []reported }) {
	w.Helper()
	out := run(w, environment(), built.dray, "fleet", "--json", "--admin", "http://"+w.members[i].ip+":6060")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		w.Fatalf("dray fleet: %v: %s", err, out)
	}
	return all
}

// says waits until the report of a member says something of another one, because a slow machine may
// take longer for an answer than members wait for it.
func (w *fleetWorld) says(i, other int, right func(reported) bool) {
	w.Helper()
	var last reported
	if !w.eventually("right report", func() bool { last = w.of(i, other); return right(last) }) {
		w.Errorf("member %d says of member %d: %+v", i, other, last)
	}
}

// answers repeats a request until the answer has a status, because members that do not wait long
// for Redis may not yet know the writer. It returns the last answer.
func (w *fleetWorld) answers(status, i int, method, path, body string) (resp *http.Response, text string) {
	w.Helper()
	w.eventually(fmt.Sprint(status, " to ", method), func() bool {
		resp, text = w.ask(i, method, path, body)
		return resp.StatusCode == status
	})
	return resp, text
}

// of returns what the report of a member says of another one.
func (w *fleetWorld) of(i, other int) reported {
	w.Helper()
	all := w.report(i).Members
	at := slices.IndexFunc(all, func(m reported) bool { return m.Address == w.members[other].door.addr })
	if at < 0 {
		w.Fatalf("member %d does not know member %d: %+v", i, other, all)
	}
	return all[at]
}

// ask sends a request to a member, and returns the answer with its body.
func (w *fleetWorld) ask(i int, method, path, body string) (*http.Response, string) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), method, "http://"+w.members[i].ip+":5000"+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp, string(text)
}

// TestFleetVersionsOneApart: members whose versions are one apart fetch once, share what the
// registry has said, and take the pushes of clients whose requests reach both in turn.
func TestFleetVersionsOneApart(t *testing.T) {
	w := startVersions(t, 1)
	for i := range 2 {
		protocol := w.of(i, i).Protocol
		w.says(i, 1-i, func(m reported) bool { return m.Failure == "" && m.State != nil && m.Protocol == protocol+1-2*i })
	}
	r := &round{fleetWorld: w}
	if !w.eventually("one fetch for both", r.oneFetch) {
		t.Error("each member fetches for itself")
	}
	for _, wrong := range r.found {
		t.Error(wrong)
	}

	img, questions := w.seed(), func() int64 {
		<-w.hub.Idle()
		c := w.hub.Counters()
		return c[ecrtest.KindManifestGet].Requests + c[ecrtest.KindManifestHead].Requests
	}
	before := questions()
	for i := range 4 {
		if resp, text := w.ask(i%2, "GET", "/v2/library/app/manifests/"+img.tag, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", resp.Status, text)
		}
	}
	if n := questions() - before; n > 2 { // one, unless a slow machine takes the other member for dead
		t.Errorf("the registry was asked %d times about a tag", n)
	}

	var turn atomic.Int64
	balancer := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.members[int(turn.Add(1))%2].ip+":5000")
	}}
	for i := range 3 {
		image, err := random.Image(200<<10, 3)
		if err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(fmt.Sprint("balancer.example/ecr/team/app:v", i), name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(tag, image, remote.WithTransport(balancer), remote.WithContext(t.Context()), remote.WithJobs(1)); err != nil {
			t.Errorf("push %d: %v", i, err)
		}
		if _, ok := w.pushTo.Image("team/app", fmt.Sprint("v", i)); !ok {
			t.Errorf("ECR does not have push %d", i)
		}
	}
	if n := w.members[0].metric("dray_fleet_passed_requests_total") + w.members[1].metric("dray_fleet_passed_requests_total"); n == 0 {
		t.Error("no request of a push was passed on")
	}
}

// TestFleetVersionsTwoApart: members whose versions are two apart name each other, and fetch for
// themselves. Each refuses the pushes to a repository whose writer is the other one, and the writer
// remains that.
func TestFleetVersionsTwoApart(t *testing.T) {
	w := startVersions(t, 2)
	for i := range 2 {
		protocol := w.of(i, i).Protocol
		w.says(i, 1-i, func(m reported) bool {
			return strings.Contains(m.Failure, "speaks another protocol") && m.State == nil && m.Protocol == protocol+2-4*i
		})
	}
	img := w.seed()
	before, _ := w.sent()
	for _, m := range w.members {
		if c := m.pull(img); !done(c) {
			t.Error(c.err)
		}
	}
	<-w.hub.Idle()
	if now, _ := w.sent(); now-before < 2*img.size {
		t.Errorf("the registry sent %d bytes, less than two layers", now-before)
	}

	const uploads = "/v2/ecr/team/app/blobs/uploads/"
	resp, text := w.answers(http.StatusAccepted, 0, "POST", uploads, "")
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	at := resp.Header.Get("Location")
	if _, path, ok := strings.Cut(strings.TrimPrefix(at, "http://"), "/"); ok && strings.HasPrefix(at, "http") {
		at = "/" + path
	}
	for _, c := range []struct{ method, path string }{{"PATCH", at}, {"POST", uploads}} {
		resp, text := w.answers(http.StatusServiceUnavailable, 1, c.method, c.path, "x")
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "member "+w.of(0, 0).ID) || !strings.Contains(text, "speaks another protocol") {
			t.Errorf("%s at the other member: %s: %s", c.method, resp.Status, text)
		}
	}
	if resp, text := w.ask(0, "PATCH", at, "x"); resp.StatusCode != http.StatusAccepted {
		t.Errorf("at the writer: %s: %s", resp.Status, text)
	}
	for _, m := range w.members {
		if log := string(read(t, m.logFile)); strings.Count(log, "a member of the fleet speaks another protocol") != 1 {
			t.Errorf("%s does not name the other member once in its log", m.name)
		}
	}
}
