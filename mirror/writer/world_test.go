package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/mirror/writer"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient never takes a slow machine for a failed member, but one at whose address nobody listens.
var patient = fleet.Patience{Dial: time.Minute, Stall: 20 * time.Millisecond, Begin: time.Minute, Answer: time.Minute, Store: time.Minute}

// member is a mirror of a fleet, with a listener for clients and one for other members.
type member struct {
	*mirrortest.Fixture
	info   fleet.Member
	ln     *fleettest.Listener // for other members
	url    string
	client *http.Client
	// blind says that this member cannot reach the store of claims.
	blind atomic.Bool
	// differs says that another registry is behind this member's upstream.
	differs atomic.Bool
	// passed counts the bytes of bodies that this member has passed on.
	passed atomic.Int64
	// asked counts the questions of this member whether another one is alive, when they have ended.
	asked atomic.Int64
	// requests counts the requests that this member has passed on.
	requests atomic.Int64
	// stop makes the member stop answering others, in order.
	stop func()
	live func() []fleet.Member
	// kill ends all connections of clients and members at once, and refuses further ones.
	kill func()
}

// world is a fleet before one registry in memory.
type world struct {
	testing.TB
	registry *mirrortest.Registry
	claims   *fleettest.Memory
	members  []*member
	turn     int
}

// start starts n members, which know of others besides. The function edit may change the options of
// each.
func start(t testing.TB, n int, edit func(*member, *mirror.Options), others ...fleet.Member) *world {
	t.Helper()
	w := &world{TB: t, registry: mirrortest.NewRegistry(), claims: &fleettest.Memory{TTL: time.Hour}}
	alive := &fleettest.Memory{TTL: time.Hour}
	for _, o := range others {
		if _, err := alive.Renew(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := &member{ln: &fleettest.Listener{Listener: inner}, info: fleet.Member{ID: fmt.Sprint("member-", i), Address: inner.Addr().String(), Protocol: fleet.Protocol()}}
		if _, err := alive.Renew(t.Context(), m.info, nil); err != nil { // so that each knows all of them at once
			t.Fatal(err)
		}
		w.members = append(w.members, m)
	}
	for _, m := range w.members {
		w.start(m, alive, edit)
	}
	for _, m := range w.members {
		m.Until(func() bool { return len(m.live()) == n+len(others) })
	}
	return w
}

var keys = sync.OnceValues(func() (*fleet.Keys, error) { return fleet.ParseKeys([]byte("a secret of 32 characters or more")) })

func (w *world) start(m *member, alive *fleettest.Memory, edit func(*member, *mirror.Options)) {
	w.Helper()
	k, err := keys()
	if err != nil {
		w.Fatal(err)
	}
	var others *fleet.Fleet
	m.Fixture = mirrortest.New(w, mirrortest.Options{Change: func(f *mirrortest.Fixture, o *mirror.Options) {
		f.Upstream.Source, f.Upstream.Sink, f.Upstream.Lister = w.registry, w.registry, w.registry
		m.Fixture = f
		others = fleet.New(fleet.Options{Self: m.info, Leases: alive, Cache: f.Cache, Keys: func() *fleet.Keys { return k }, Patience: patient})
		o.Writers = &writer.Options{Self: m.info, Members: counting{others, m}, Claims: claims{w.claims, m}, Patience: patient, RenewEvery: time.Hour, Identity: m.identity}
		if edit != nil {
			edit(m, o)
		}
	}})
	m.Mirror.Writers().Receive("l", m.Listener)
	others.Handle(writer.Path, m.Mirror.Writers())
	m.live = others.Live
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = others.Run(ctx) })
	running.Go(func() { _ = others.Serve(ctx, m.ln) })
	front := httptest.NewUnstartedServer(m.Listener)
	clients := &fleettest.Listener{Listener: front.Listener}
	front.Listener = clients
	front.Start()
	m.url, m.client = front.URL, &http.Client{Transport: &http.Transport{}}
	m.stop = stop
	m.kill = func() { m.ln.Kill(); clients.Kill() }
	w.Cleanup(func() {
		m.client.CloseIdleConnections()
		clients.Kill()
		front.Close()
		stop()
		others.Interrupt()
		m.ln.Kill()
		running.Wait()
	})
}

// identity is what a member calls the registry.
func (m *member) identity(upstream string) string {
	if m.differs.Load() {
		return "another registry"
	}
	return "registry of " + upstream
}

// claims are the claims as one member sees them.
type claims struct {
	*fleettest.Memory
	m *member
}

var errBlind = errors.New("the store cannot be reached")

func (c claims) Take(ctx context.Context, d digest.Digest, m fleet.Member, failed int64) (fleet.Lease, error) {
	if c.m.blind.Load() {
		return fleet.Lease{}, errBlind
	}
	return c.Memory.Take(ctx, d, m, failed)
}

func (c claims) Find(ctx context.Context, d digest.Digest) (fleet.Lease, error) {
	if c.m.blind.Load() {
		return fleet.Lease{}, errBlind
	}
	return c.Memory.Find(ctx, d)
}

// counting counts the bodies that are sent to other members.
type counting struct {
	*fleet.Fleet
	m *member
}

func (c counting) Send(ctx context.Context, to fleet.Member, r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/alive") {
		defer c.m.asked.Add(1)
	} else {
		c.m.requests.Add(1)
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = counted{r.Body, c.m}
	}
	return c.Fleet.Send(ctx, to, r)
}

type counted struct {
	io.ReadCloser
	m *member
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.m.passed.Add(int64(n))
	return n, err
}

// answer is an answer, read to its end.
type answer struct {
	*http.Response
	body []byte
}

// send sends a request to a member. headers are alternating names and values.
func (m *member) send(method, path string, body io.Reader, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(m.Context(), method, m.url+strings.TrimPrefix(path, m.url), body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := m.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp, text}, err
}

// next sends a request to the next member in turn, and compares the status.
func (w *world) next(status int, method, path string, body []byte, headers ...string) answer {
	w.Helper()
	w.turn++
	return w.want(w.members[w.turn%len(w.members)], status, method, path, body, headers...)
}

// want sends a request to a member, and compares the status.
func (w *world) want(m *member, status int, method, path string, body []byte, headers ...string) answer {
	w.Helper()
	a, err := m.send(method, path, bytes.NewReader(body), headers...)
	if err != nil {
		w.Fatalf("%s %s at %s: %v", method, path, m.info.ID, err)
	}
	if a.StatusCode != status {
		w.Fatalf("%s %s at %s: %s, want %d\n%s", method, path, m.info.ID, a.Status, status, a.body)
	}
	return a
}

func blobPath(repo string, blob []byte) string {
	return "/v2/" + repo + "/blobs/" + digest.FromBytes(blob).String()
}

// upload uploads a blob in two chunks, each request to another member.
func (w *world) upload(repo string, blob []byte) {
	w.Helper()
	w.next(404, "HEAD", blobPath(repo, blob), nil)
	at := w.next(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
	half := len(blob) / 2
	at = w.next(202, "PATCH", at, blob[:half], "Content-Range", fmt.Sprintf("0-%d", half-1)).Header.Get("Location")
	if got := w.next(204, "GET", at, nil).Header.Get("Range"); got != fmt.Sprintf("0-%d", half-1) {
		w.Errorf("the upload has %s", got)
	}
	w.next(202, "PATCH", at, blob[half:], "Content-Range", fmt.Sprintf("%d-%d", half, len(blob)-1))
	w.next(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	w.next(200, "HEAD", blobPath(repo, blob), nil)
}

// manifest pushes a manifest.
func (w *world) manifest(repo, reference string, m *oci.Manifest) {
	w.Helper()
	w.next(201, "PUT", "/v2/"+repo+"/manifests/"+reference, m.Raw, "Content-Type", m.MediaType)
}

// has checks that the registry has a manifest under a tag.
func (w *world) has(repo, tag string, m *oci.Manifest) {
	w.Helper()
	if got := w.registry.Held(repo, oci.Reference{Tag: tag}); got == nil || got.Digest != m.Digest {
		w.Errorf("the registry has %v under %s:%s", got, repo, tag)
	}
}

// index returns an index of manifests.
func index(t testing.TB, children ...*oci.Manifest) *oci.Manifest {
	t.Helper()
	var all []string
	for _, c := range children {
		all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, c.MediaType, c.Digest, len(c.Raw)))
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeOCIIndex, strings.Join(all, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// writerOf returns the member that the store names for a repository.
func (w *world) writerOf(repo string) *member {
	w.Helper()
	l, err := w.claims.Find(w.Context(), digest.FromString("registry of up/"+repo))
	if err != nil {
		w.Fatal(err)
	}
	for _, m := range w.members {
		if m.info.ID == l.Holder {
			return m
		}
	}
	w.Fatalf("the writer of %s is %q", repo, l.Holder)
	return nil
}

// others returns the members that are not m.
func (w *world) others(m *member) (all []*member) {
	for _, o := range w.members {
		if o != m {
			all = append(all, o)
		}
	}
	return all
}
