package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/mirror"
	"dray/mirror/gate"
	"dray/mirror/identity"
	"dray/mirror/mirrortest"
	"dray/mirror/pipeline"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// deleter deletes from the registry of the test.
type deleter struct{ *mirrortest.Registry }

func (d deleter) DeleteManifest(_ context.Context, r upstream.Repo, ref oci.Reference) error {
	d.DropManifest(r.Name, ref)
	return nil
}

func (d deleter) DeleteBlob(_ context.Context, r upstream.Repo, blob digest.Digest) error {
	d.DropBlob(r.Name, blob)
	return nil
}

// house is a stage that rejects manifests with a forbidden tag.
type house struct{}

func (house) Name() string     { return "house" }
func (house) Revision() string { return pipeline.Revision(1, nil) }
func (house) CheckName(_ context.Context, n pipeline.Name) ([]pipeline.Finding, error) {
	if n.Tag != "forbidden" {
		return nil, nil
	}
	return []pipeline.Finding{{Rule: "tag", What: "the tag is forbidden", Fix: "use another one"}}, nil
}

// gated puts a gate before all repositories, so that the children of an index wait for it.
func gated(t testing.TB, o *mirror.Options) {
	p, err := pipeline.New(pipeline.Options{Name: "house", Steps: []pipeline.Step{{Stage: house{}, Mode: pipeline.Enforce}}})
	if err != nil {
		t.Fatal(err)
	}
	o.Gates = map[string][]*gate.Gate{"up": {{Pipeline: p, Repositories: []string{"*"}}}}
}

func layers(n int) (all [][]byte) {
	for i := range n {
		all = append(all, bytes.Repeat([]byte(fmt.Sprint("layer ", i, " ")), 20_000))
	}
	return all
}

// TestRoundRobin sends each request of some pushes to another member.
func TestRoundRobin(t *testing.T) {
	w := start(t, 3, func(_ *member, o *mirror.Options) {
		gated(t, o)
		o.Upstreams[0].Deleter = deleter{w(o)}
	})
	all := layers(2)
	for _, l := range all {
		w.upload("team/app", l)
	}
	whole := []byte("a layer in one request")
	w.next(201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(whole).String(), whole)
	at := w.next(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	w.next(204, "DELETE", at, nil)
	w.next(404, "GET", at, nil)

	// The children wait for their index, and only the writer has them.
	children := []*oci.Manifest{mirrortest.Image(t, all[0], whole), mirrortest.Image(t, all[1])}
	for _, c := range children {
		w.manifest("team/app", c.Digest.String(), c)
		for range w.members {
			if a := w.next(200, "GET", "/v2/team/app/manifests/"+c.Digest.String(), nil); !bytes.Equal(a.body, c.Raw) {
				t.Errorf("another manifest: %s", a.body)
			}
			w.next(200, "HEAD", "/v2/team/app/manifests/"+c.Digest.String(), nil)
		}
		if w.registry.Held("team/app", oci.Reference{Digest: c.Digest}) != nil {
			t.Error("a child did not wait")
		}
	}
	for range w.members {
		if a := w.next(200, "GET", blobPath("team/app", whole), nil); !bytes.Equal(a.body, whole) {
			t.Errorf("another blob: %q", a.body)
		}
	}
	list := index(t, children...)
	w.manifest("team/app", "v1", list)
	w.has("team/app", "v1", list)

	// A blob that the registry has in another repository is left out of a push or mounted from there.
	w.next(202, "POST", "/v2/team/new/blobs/uploads/?mount="+digest.FromBytes(whole).String()+"&from=team/app", nil)

	// The checks reject for all members, and each can show the report.
	refused := w.next(403, "PUT", "/v2/team/app/manifests/forbidden", list.Raw, "Content-Type", list.MediaType)
	_, report, ok := strings.Cut(string(refused.body), w.members[w.turn%3].url)
	if !ok || !strings.Contains(report, "forbidden") && !strings.Contains(string(refused.body), "the tag is forbidden") {
		t.Fatalf("the refusal is %s", refused.body)
	}
	report, _, _ = strings.Cut(report, `"`)
	report = strings.TrimRight(strings.Fields(report)[0], `\n.;,)`)
	for range w.members {
		if a := w.next(200, "GET", report, nil); !bytes.Contains(a.body, []byte("the tag is forbidden")) {
			t.Errorf("the report is %s", a.body)
		}
	}
	w.next(404, "GET", report+"x", nil)

	w.next(202, "DELETE", "/v2/team/app/manifests/v1", nil)
	if w.registry.Held("team/app", oci.Reference{Tag: "v1"}) != nil {
		t.Error("the tag is still there")
	}
	w.next(404, "GET", "/v2/team/app/manifests/v2", nil)
	writer := w.writerOf("team/app")
	for _, m := range w.others(writer) {
		if n := m.Counted("dray_fleet_worked_requests_total"); n > 1 { // team/new may be another's
			t.Errorf("%s worked on %v requests", m.info.ID, n)
		}
		if n := m.Counted("dray_fleet_passed_requests_total"); n < 5 {
			t.Errorf("%s passed %v requests on", m.info.ID, n)
		}
	}
}

// w returns the registry that a member of a test pushes to.
func w(o *mirror.Options) *mirrortest.Registry { return o.Upstreams[0].Sink.(*mirrortest.Registry) }

// TestAnswerIsTheWriters: what the client sees of an answer, and what the logs have of the request,
// is as if the client had reached the writer.
func TestAnswerIsTheWriters(t *testing.T) {
	w := start(t, 2, nil)
	front, back := w.members[1], w.members[0]
	w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
	front.Listener.ExternalURL = "https://front.example"
	a := w.want(front, 202, "POST", "/v2/team/app/blobs/uploads/", nil, "X-Request-Id", "id-of-the-client", "Dray-Request", "x")
	if got := a.Header.Get("Location"); !strings.HasPrefix(got, "https://front.example/v2/team/app/blobs/uploads/") {
		t.Errorf("the location is %s", got)
	}
	if a.Header.Get("X-Request-Id") != "id-of-the-client" || a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("the header is %v", a.Header)
	}
	for name := range a.Header {
		if strings.HasPrefix(name, "Dray-") {
			t.Errorf("the client sees %s", name)
		}
	}
	for m, want := range map[*member]float64{front: 1, back: 1} {
		if n := m.Counted("dray_requests_total"); n != want {
			t.Errorf("%s counts %v requests, want %v", m.info.ID, n, want)
		}
	}
	front.Listener.Name = "127.0.0.1:1" // the only one of the other member will do
	w.want(front, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
	back.Mirror.Writers().Receive("second", back.Listener)
	if a := w.want(front, 503, "POST", "/v2/team/app/blobs/uploads/", nil); !bytes.Contains(a.body, []byte("the same names")) {
		t.Errorf("got %s", a.body)
	}
	front.Listener.Name = "l"
	if a := w.want(front, 413, "PUT", "/v2/team/app/manifests/v1", make([]byte, 5<<20), "Content-Type", oci.MediaTypeOCIManifest); !bytes.Contains(a.body, []byte("SIZE_INVALID")) {
		t.Errorf("got %s", a.body)
	}
	w.want(front, 431, "PUT", "/v2/team/app/manifests/v1", nil, "X-Long", strings.Repeat("x", 20_000))
}

// users authenticates everybody by the name in a header, and counts how often.
type users struct{ asked *int }

func (u users) Authenticate(r *http.Request, _ []identity.Need) (identity.Principal, error) {
	*u.asked++
	if name, _, ok := r.BasicAuth(); ok {
		return identity.Principal{Name: name}, nil
	}
	return identity.Principal{}, oci.ErrUnauthorized
}

// TestWriterAuthorises: the member that the client has reached authenticates, and the writer
// decides by its own rules.
func TestWriterAuthorises(t *testing.T) {
	w := start(t, 2, nil)
	back, front := w.members[0], w.members[1]
	asked, refused := [2]int{}, 0
	rule := func(m *member, i int, users_ ...string) {
		m.Listener.Policy = identity.Policy{Role: identity.RoleRegistry, Access: &identity.Access{
			Authenticator: users{&asked[i]}, Failed: func(*http.Request, error) { refused += i },
			Rules: []identity.Rule{{Users: users_, Repositories: []string{"*"}, Actions: []identity.Action{identity.Pull, identity.Push}}},
		}}
	}
	rule(front, 0, "alice", "bob")
	rule(back, 1, "alice")
	as := func(name string) (header, value string) {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.SetBasicAuth(name, "secret")
		return "Authorization", r.Header.Get("Authorization")
	}
	header, alice := as("alice")
	_, bob := as("bob")
	at := w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil, header, alice).Header.Get("Location")
	asked = [2]int{}
	w.want(front, 204, "GET", at, nil, header, alice) // the upload is that of the same user
	w.want(front, 401, "GET", at, nil)
	if a := w.want(front, 403, "POST", "/v2/team/app/blobs/uploads/", nil, header, bob); !bytes.Contains(a.body, []byte("according to the member")) {
		t.Errorf("got %s", a.body)
	}
	if asked != [2]int{3, 0} || refused != 1 {
		t.Errorf("the members authenticated %v times, and the writer noted %d refusals", asked, refused)
	}
}

// held is a body that gives its second half when it is released.
type held struct {
	io.Reader
	at      int
	read    int
	release chan struct{}
}

func (h *held) Read(p []byte) (int, error) {
	if h.read < h.at {
		p = p[:min(len(p), h.at-h.read)]
	} else {
		<-h.release
	}
	n, err := h.Reader.Read(p)
	h.read += n
	return n, err
}

// TestStreams: a body goes to the writer while the client sends it.
func TestStreams(t *testing.T) {
	w := start(t, 2, nil)
	back, front := w.members[0], w.members[1]
	blob := bytes.Repeat([]byte("0123456789abcdef"), 512<<10) // 8 MiB
	at := w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	body := &held{Reader: bytes.NewReader(blob), at: len(blob) / 2, release: make(chan struct{})}
	done := make(chan answer, 1)
	go func() {
		a, err := front.send("PATCH", at, body)
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	front.Until(func() bool { return front.passed.Load() == int64(len(blob)/2) })
	close(body.release)
	if a := <-done; a.Response == nil || a.StatusCode != 202 {
		t.Fatalf("got %v", a.Response)
	}
	w.want(front, 201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	m := mirrortest.Image(t, blob)
	w.manifest("team/app", "v1", m)
	if got, err := w.registry.HeldBlob("team/app", digest.FromBytes(blob)); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("the registry has %d bytes, %v", len(got), err)
	}
}

// TestRefusedEarly: no byte of a body is sent to a writer that refuses the request, and a refusal
// while the body is sent reaches the client.
func TestRefusedEarly(t *testing.T) {
	w := start(t, 2, func(_ *member, o *mirror.Options) { o.MaxUploadBytesPerClient = 1 << 20 })
	back, front := w.members[0], w.members[1]
	at := w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	w.want(front, 416, "PATCH", at, []byte("late"), "Content-Range", "10-13")
	w.want(front, 404, "PATCH", at+"x", []byte("nowhere"))
	if n := front.passed.Load(); n != 0 {
		t.Errorf("%d bytes were passed on", n)
	}
	body := &held{Reader: strings.NewReader(strings.Repeat("x", 8<<20)), at: 1<<20 + 100<<10, release: make(chan struct{})}
	defer close(body.release)
	a, err := front.send("PATCH", at, body)
	if err != nil || a.StatusCode != 413 {
		t.Errorf("got %v, %v", a.Response, err)
	}
}

// TestWriterDies kills the writer while it receives a blob. That push fails, what was acknowledged
// stays, and the next push succeeds at once.
func TestWriterDies(t *testing.T) {
	w := start(t, 3, nil)
	first := layers(1)[0]
	w.upload("team/app", first)
	m := mirrortest.Image(t, first)
	w.manifest("team/app", "v1", m)
	dead := w.writerOf("team/app")
	left := w.others(dead)
	blob := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	at := w.want(left[0], 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	body := &held{Reader: bytes.NewReader(blob), at: len(blob) / 2, release: make(chan struct{})}
	before := left[0].passed.Load()
	done := make(chan answer, 1)
	go func() {
		a, err := left[0].send("PATCH", at, body)
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	left[0].Until(func() bool { return left[0].passed.Load()-before == int64(len(blob)/2) })
	dead.kill()
	if a := <-done; a.Response == nil || a.StatusCode != 503 {
		t.Errorf("got %v", a.Response)
	}
	close(body.release)
	w.members = left
	w.next(404, "PATCH", at, blob)
	w.upload("team/app", blob)
	again := mirrortest.Image(t, first, blob)
	w.manifest("team/app", "v2", again)
	w.has("team/app", "v1", m)
	w.has("team/app", "v2", again)
	if w.writerOf("team/app") == dead {
		t.Error("the dead member is still the writer")
	}
	taken := left[0].Counted("dray_fleet_writer_takeovers_total") + left[1].Counted("dray_fleet_writer_takeovers_total")
	if taken != 1 {
		t.Errorf("the repository was taken over %v times", taken)
	}
}

// TestWithoutStore has the store of claims fail during a push, and before one.
func TestWithoutStore(t *testing.T) {
	w := start(t, 3, nil)
	all := layers(3)
	at := w.next(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	for range w.members { // each of them has met the writer
		w.next(204, "GET", at, nil)
	}
	w.claims.Fail(errors.New("the store is away"))
	w.next(201, "PUT", at+"?digest="+digest.FromBytes(all[0]).String(), all[0])
	w.upload("team/app", all[1])
	w.upload("team/new", all[2]) // all choose the same writer
	one, two := mirrortest.Image(t, all[0], all[1]), mirrortest.Image(t, all[2])
	w.manifest("team/app", "v1", one)
	w.manifest("team/new", "v1", two)
	w.has("team/app", "v1", one)
	w.has("team/new", "v1", two)
	var writers float64
	for _, m := range w.members {
		writers += m.Counted("dray_fleet_repositories")
	}
	if writers != 2 {
		t.Errorf("%v members are writers of two repositories", writers)
	}
}

// TestMoved has a member that cannot reach the store remember a former writer. That one names the
// present writer, before it reads the body.
func TestMoved(t *testing.T) {
	w := start(t, 3, nil)
	former, front, present := w.members[0], w.members[1], w.members[2]
	w.want(former, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
	w.want(front, 202, "POST", "/v2/team/app/blobs/uploads/", nil) // it meets the former writer
	front.blind.Store(true)
	former.Mirror.Writers().Forget()
	w.claims.Flush()
	at := w.want(present, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	blob := layers(1)[0]
	w.want(front, 202, "PATCH", at, blob)
	if n := front.passed.Load(); n != int64(len(blob)) {
		t.Errorf("%d bytes were passed on, want %d", n, len(blob))
	}
	if n := former.Counted("dray_fleet_worked_requests_total"); n != 1 {
		t.Errorf("the former writer worked on %v requests", n)
	}
	w.want(front, 201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
}

// TestEachOther has two members that cannot reach the store take each other for the writer. A
// request goes forth and back, and is worked on.
func TestEachOther(t *testing.T) {
	w := start(t, 2, nil)
	a, b := w.members[0], w.members[1]
	w.want(a, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
	w.want(b, 202, "POST", "/v2/team/app/blobs/uploads/", nil) // b takes a for the writer
	a.Mirror.Writers().Forget()
	w.claims.Flush()
	b.Mirror.Writers().Claim("up", "team/app")
	w.want(a, 202, "POST", "/v2/team/app/blobs/uploads/", nil) // a takes b for the writer
	b.Mirror.Writers().Forget()
	b.Mirror.Writers().Remember("up", "team/app", a.info)
	w.claims.Fail(errBlind)
	at := w.want(a, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	w.want(b, 204, "GET", at, nil)
}

// TestDiffers has the writer's upstream become another registry. It does not push there what
// clients of other members mean for theirs.
func TestDiffers(t *testing.T) {
	w := start(t, 2, nil)
	back, front := w.members[0], w.members[1]
	at := w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	w.want(front, 204, "GET", at, nil)
	back.differs.Store(true)
	if a := w.want(front, 503, "PUT", at+"?digest="+digest.FromString("x").String(), []byte("x")); !bytes.Contains(a.body, []byte("alike")) {
		t.Errorf("got %s", a.body)
	}
	w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
}

// TestFar: a writer whose version is too far from this one's remains the writer, and is named. What
// needs no writer goes on.
func TestFar(t *testing.T) {
	far := fleet.Member{ID: "far", Address: "127.0.0.1:1", Protocol: fleet.Protocol() + 2}
	w := start(t, 1, nil, far)
	a, name := w.members[0], digest.FromString("registry of up/team/app")
	if _, err := w.claims.Take(t.Context(), name, far, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got := w.want(a, 503, "POST", "/v2/team/app/blobs/uploads/", []byte("x"))
		for _, text := range []string{"member far at 127.0.0.1:1", "another protocol", "pushes to team/app"} {
			if !bytes.Contains(got.body, []byte(text)) {
				t.Errorf("got %s", got.body)
			}
		}
	}
	w.want(a, 404, "HEAD", blobPath("team/app", []byte("x")), nil)
	w.want(a, 404, "GET", "/v2/team/app/manifests/v1", nil)
	w.want(a, 202, "POST", "/v2/team/other/blobs/uploads/", nil)
	if l, err := w.claims.Find(t.Context(), name); err != nil || l.Holder != "far" || a.Counted("dray_fleet_writer_takeovers_total") != 0 {
		t.Errorf("the writer is %+v, %v", l, err)
	}
}

// TestWriterStops has the writer stop in order while it receives a blob. The request ends well,
// however long it takes.
func TestWriterStops(t *testing.T) {
	w := start(t, 2, nil)
	back, front := w.members[0], w.members[1]
	at := w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
	blob := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	body := &held{Reader: bytes.NewReader(blob), at: len(blob) / 2, release: make(chan struct{})}
	done := make(chan answer, 1)
	go func() {
		a, err := front.send("PATCH", at, body)
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	front.Until(func() bool { return front.passed.Load() == int64(len(blob)/2) })
	back.Until(func() bool { return back.Mirror.Uploads()[0].Bytes > 0 }) // it has begun to work on the request
	back.stop()
	asked := front.asked.Load()
	front.Until(func() bool { return front.asked.Load() > asked+2 || len(done) > 0 })
	close(body.release)
	if a := <-done; a.Response == nil || a.StatusCode != 202 {
		t.Errorf("got %v %s", a.Response, a.body)
	}
}

// last is a deleter whose member ends when it has deleted something, before it can say so.
type last struct {
	deleter
	m     *member
	calls *atomic.Int64
}

func (l last) DeleteManifest(ctx context.Context, r upstream.Repo, ref oci.Reference) error {
	l.calls.Add(1)
	err := l.deleter.DeleteManifest(ctx, r, ref)
	l.m.ln.Kill()
	return err
}

// TestDoneOnce has the writer end after it has done what a request without a body asks for. Nobody
// does it again: the client would learn that there is nothing to be deleted.
func TestDoneOnce(t *testing.T) {
	var calls atomic.Int64
	w := start(t, 2, func(m *member, o *mirror.Options) {
		o.Upstreams[0].Deleter = last{deleter{w(o)}, m, &calls}
	})
	back, front := w.members[0], w.members[1]
	w.registry.HoldManifest("team/app", "v1", mirrortest.Image(t, []byte("layer")))
	w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
	w.want(front, 503, "DELETE", "/v2/team/app/manifests/v1", nil)
	if n := calls.Load(); n != 1 {
		t.Errorf("the tag was deleted %d times", n)
	}
	w.want(front, 202, "POST", "/v2/team/app/blobs/uploads/", nil) // the next request goes elsewhere at once
}

// TestHeadWithToken has a client ask for a layer of a push with a token that lets it push. The
// member that it reaches takes a former writer for the present one. The former writer decides by
// what that member has seen of the token.
func TestHeadWithToken(t *testing.T) {
	release := make(chan struct{})
	w := start(t, 3, func(_ *member, o *mirror.Options) { o.Upstreams[0].Sink = slowBlobs{w(o), release} })
	defer close(release)
	former, front, present := w.members[0], w.members[1], w.members[2]
	layer := layers(1)[0]
	w.want(present, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
	former.Listener.Policy = identity.Policy{Role: identity.RoleRegistry, Access: &identity.Access{Authenticator: &identity.Token{}}}
	front.blind.Store(true)
	front.Mirror.Writers().Remember("up", "team/app", former.info)
	w.want(front, 200, "HEAD", blobPath("team/app", layer), nil)
}

// slowBlobs is a registry that gets the end of a blob when it is released.
type slowBlobs struct {
	*mirrortest.Registry
	release chan struct{}
}

func (s slowBlobs) PutBlob(ctx context.Context, r upstream.Repo, u upstream.Upload) error {
	select {
	case <-s.release:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.Registry.PutBlob(ctx, r, u)
}

// TestAcknowledged has a push acknowledged and not forwarded yet. Clients of each member see it.
func TestAcknowledged(t *testing.T) {
	w := start(t, 2, func(m *member, o *mirror.Options) {
		o.Upstreams[0].AcknowledgeLocally = true
		q, err := queue.Open(t.Context(), queue.Options{Directory: filepath.Join(t.TempDir(), "queue"), Hold: m.Cache.Retain})
		if err != nil {
			t.Fatal(err)
		}
		o.Queue = q
	})
	a, b := w.members[0], w.members[1]
	old := mirrortest.Image(t, []byte("old"))
	w.registry.HoldManifest("team/app", "v1", old)
	w.registry.HoldBlob("team/app", []byte("old"))
	w.want(b, 200, "GET", "/v2/team/app/manifests/v1", nil)
	layer := layers(1)[0]
	w.want(a, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
	m := mirrortest.Image(t, layer)
	w.want(a, 201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	for _, method := range []string{"GET", "HEAD"} {
		if got := w.want(b, 200, method, "/v2/team/app/manifests/"+m.Digest.String(), nil).Header.Get("Docker-Content-Digest"); got != m.Digest.String() {
			t.Errorf("%s: %s", method, got)
		}
	}
	if got := w.want(b, 200, "GET", blobPath("team/app", layer), nil); !bytes.Equal(got.body, layer) {
		t.Errorf("a blob of %d bytes", len(got.body))
	}
	var open []repository.Repo
	a.Mirror.Writers().Unfinished(func(r repository.Repo) { open = append(open, r) })
	if len(open) == 0 || open[0].Name != "team/app" {
		t.Errorf("unfinished: %v", open)
	}
}
