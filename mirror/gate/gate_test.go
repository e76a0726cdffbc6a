package gate

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/mirror/flight"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage judges images after a while, and may have something against them.
type stage struct {
	takes   time.Duration
	against string
	judged  atomic.Int64
}

func (*stage) Name() string     { return "stage" }
func (*stage) Revision() string { return "1" }

func (s *stage) CheckImage(ctx context.Context, _ *pipeline.Image) ([]pipeline.Finding, error) {
	s.judged.Add(1)
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.against != "" {
		return []pipeline.Finding{{Rule: "rule", What: s.against}}, nil
	}
	return nil, nil
}

// nothing is the contents of an image without blobs.
type nothing struct{ pipeline.Contents }

// fixture is the checks of one repository.
type fixture struct {
	*Checks
	gate  *Gate
	tasks *flight.Tasks
	repo  repository.Repo
	told  []notify.Event
}

// newFixture returns checks by a pipeline. Its tasks stop at the end of the test.
func newFixture(t *testing.T, o pipeline.Options) *fixture {
	t.Helper()
	o.Name = "checks"
	pipe, err := pipeline.New(o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		gate:  &Gate{Pipeline: pipe, Repositories: []string{"team/*"}, ForwardDigests: true},
		tasks: flight.NewTasks(), repo: repository.Repo{Up: &repository.Upstream{Name: "up"}, Name: "team/app"},
	}
	t.Cleanup(f.tasks.Stop)
	f.Checks = New(Options{
		Gates: map[string][]*Gate{"up": {f.gate}}, Tasks: f.tasks, Logger: slog.New(slog.DiscardHandler), Bound: time.Hour,
		OnEvent: func(e notify.Event) { f.told = append(f.told, e) },
	})
	return f
}

// judging returns checks whose one stage looks at images, and no layers.
func judging(t *testing.T, s *stage) *fixture {
	t.Helper()
	return newFixture(t, pipeline.Options{ArchiveMode: pipeline.Off, Steps: []pipeline.Step{{Stage: s, Within: time.Hour}}})
}

// push is a push of an image under a tag, whose client waits for 20 s.
func (f *fixture) push(t *testing.T, tag string) Push {
	t.Helper()
	man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[]}`, oci.MediaTypeOCIManifest))
	if err != nil {
		t.Fatal(err)
	}
	return Push{Repo: f.repo, Gate: f.gate, User: "ann", Ref: oci.Reference{Tag: tag}, Manifest: man, Within: 20 * time.Second}
}

// The first gate with a pattern for a repository counts.
func TestFor(t *testing.T) {
	team, all := &Gate{Repositories: []string{"team/*"}}, &Gate{Repositories: []string{"*"}}
	c := New(Options{Gates: map[string][]*Gate{"up": {team, all}}})
	up, other := &repository.Upstream{Name: "up"}, &repository.Upstream{Name: "other"}
	for _, test := range []struct {
		repo repository.Repo
		want *Gate
	}{
		{repository.Repo{Up: up, Name: "team/app"}, team},
		{repository.Repo{Up: up, Name: "app"}, all},
		{repository.Repo{Up: other, Name: "team/app"}, nil},
	} {
		if c.For(test.repo) != test.want {
			t.Errorf("%s of %s has another gate", test.repo.Name, test.repo.Up.Name)
		}
	}
}

// TestReplace: an upstream that is removed keeps its gates for pushes under way; one that remains
// may lose them.
func TestReplace(t *testing.T) {
	gates := []*Gate{{Repositories: []string{"*"}}}
	c := New(Options{Gates: map[string][]*Gate{"gone": gates, "stays": gates, "loses": gates}})
	c.Replace(map[string][]*Gate{"stays": gates, "loses": nil, "new": gates})
	for name, want := range map[string]*Gate{"gone": gates[0], "stays": gates[0], "loses": nil, "new": gates[0]} {
		if got := c.For(repository.Repo{Up: &repository.Upstream{Name: name}, Name: "app"}); got != want {
			t.Errorf("%s: gate %v", name, got)
		}
	}
}

// A verdict is worked on once for all who push the same, and goes on when one of them, or all of
// them, have left.
func TestVerdictIsSharedAndOutlivesItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{takes: 10 * time.Second}
		f := judging(t, s)
		first, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Pass(first, f.push(t, "v1"), nothing{}); !errors.Is(err, context.Canceled) {
				t.Errorf("the client that left: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if r, err := f.Pass(t.Context(), f.push(t, "v1"), nothing{}); err != nil || !r.Pass {
					t.Errorf("one of many: %v", err)
				}
			})
		}
		synctest.Wait()
		leave()
		wg.Wait()
		if n := s.judged.Load(); n != 1 {
			t.Errorf("judged %d times", n)
		}
		// Another user's push is another question.
		other := f.push(t, "v1")
		other.User = "bob"
		if _, err := f.Pass(t.Context(), other, nothing{}); err != nil || s.judged.Load() != 2 {
			t.Errorf("judged %d times, %v", s.judged.Load(), err)
		}

		alone, leave := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = f.Pass(alone, f.push(t, "v2"), nothing{}) })
		synctest.Wait()
		leave()
		wg.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r := f.ReportOf(f.push(t, "v2").Key()); r == nil || !r.Pass {
			t.Error("the work ended with its client")
		}
	})
}

// A verdict that comes too late for its client is good for the client's next try: once, and not for
// long.
func TestLateVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{takes: 30 * time.Second}
		f := judging(t, s)
		late := func() {
			t.Helper()
			began := time.Now()
			_, err := f.Pass(t.Context(), f.push(t, "v1"), nothing{})
			if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "push again") || time.Since(began) != 20*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		}
		late()
		time.Sleep(time.Minute)
		began := time.Now()
		if r, err := f.Pass(t.Context(), f.push(t, "v1"), nothing{}); err != nil || !r.Pass || time.Since(began) != 0 || s.judged.Load() != 1 {
			t.Errorf("the next try: %v after %v, judged %d times", err, time.Since(began), s.judged.Load())
		}
		late() // it was good once
		time.Sleep(lateFor + 30*time.Second)
		late() // and it is too old
		if n := s.judged.Load(); n != 3 {
			t.Errorf("judged %d times", n)
		}

		f.gate.OnTimeout = pipeline.Allow
		if r, err := f.Pass(t.Context(), f.push(t, "v2"), nothing{}); err != nil || r != nil {
			t.Errorf("where late verdicts let pushes pass: %v, %v", r, err)
		}
	})
}

// An image that does not pass is rejected with its report, which is found by an id that cannot be
// guessed. The newest reports are kept.
func TestReports(t *testing.T) {
	s := &stage{against: "it smells"}
	f := judging(t, s)
	ids := map[string]bool{}
	for i := range maxReports + 3 {
		_, err := f.Pass(t.Context(), f.push(t, fmt.Sprint("v", i)), nothing{})
		r, ok := errors.AsType[*Rejected](err)
		if !ok || !strings.Contains(err.Error(), s.against) {
			t.Fatalf("it passed: %v", err)
		}
		id := r.Report.ID
		if len(id) < 26 || ids[id] { // 128 bits in base32
			t.Fatalf("the id %q", id)
		}
		if ids[id] = true; f.Report(id) != r.Report {
			t.Fatalf("%s is another report", id)
		}
	}
	all := f.Reports()
	if len(all) != maxReports || all[0].Tag != fmt.Sprint("v", maxReports+2) || all[maxReports-1].Tag != "v3" {
		t.Errorf("%d reports, from %s to %s", len(all), all[0].Tag, all[len(all)-1].Tag)
	}
	if f.Report(all[9].ID) != all[9] || f.Reports()[0] != all[0] {
		t.Error("a report that was read is taken for the newest")
	}
	if f.Report("") != nil || f.Report("v0") != nil {
		t.Error("a report without its id")
	}
}

// layer is an archive of one file.
func layer(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Typeflag: tar.TypeReg}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The number of uploads that are scanned while they arrive is bounded, and each gives its slot
// back.
func TestFollowBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, pipeline.Options{Workers: pipeline.NewWorkers(1)})
		p := layer(t)
		named := func(context.Context) (digest.Digest, error) { return digest.FromBytes(p), nil }
		var feeds []*io.PipeWriter
		follow := func() *Scan {
			return f.Follow(f.gate, pipeline.Layer{}, func() io.ReadCloser {
				r, feed := io.Pipe()
				feeds = append(feeds, feed)
				return r
			}, named)
		}
		var first *Scan
		for i := range maxWalks {
			s := follow()
			if s == nil {
				t.Fatalf("upload %d is not looked at", i)
			}
			if synctest.Wait(); first == nil {
				first = s
			}
		}
		if follow() != nil {
			t.Error("one more than the bound is looked at")
		}
		if _, err := feeds[0].Write(p); err != nil {
			t.Fatal(err)
		}
		feeds[0].Close()
		if found, err := first.Wait(t.Context()); found == nil || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
		if synctest.Wait(); follow() == nil {
			t.Error("the place is not given back")
		}
		f.tasks.Stop() // ends those that wait for bytes
		if n := len(f.walks); n != 0 {
			t.Errorf("%d places are left taken", n)
		}
		if follow() != nil || len(f.walks) != 0 {
			t.Error("an upload is looked at by tasks that have stopped, or keeps its place")
		}
	})
}

// A layer is completed at the upstream only if its scan reached its end and rejected nothing.
func TestCleared(t *testing.T) {
	f := newFixture(t, pipeline.Options{})
	good := layer(t)
	scan := func(r io.Reader) *Scan {
		return f.Follow(f.gate, pipeline.Layer{}, func() io.ReadCloser { return io.NopCloser(r) }, func(context.Context) (digest.Digest, error) { return digest.FromBytes(good), nil })
	}
	for name, test := range map[string]struct {
		scan *Scan
		want error
	}{
		"nobody looks at it": {nil, nil},
		"good":               {scan(bytes.NewReader(good)), nil},
		"no archive":         {scan(strings.NewReader("\x1f\x8b" + strings.Repeat("no archive", 100))), errLayerRejected},
		"it breaks off":      {scan(io.MultiReader(bytes.NewReader(good[:512]), broken{})), ErrHeldBack},
	} {
		if err := test.scan.Cleared(t.Context(), f.gate, f.repo); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	for name, g := range map[string]*Gate{"no gate": nil, "a gate that looks at no layers": judging(t, &stage{}).gate} {
		if f.Follow(g, pipeline.Layer{}, nil, nil) != nil {
			t.Errorf("%s: the upload is looked at", name)
		}
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := (&Scan{done: make(chan struct{})}).Wait(left); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the client left") }

// Events have the image that was pushed, where it can be pulled, what was deleted, and the
// verdict. None is sent without a receiver.
func TestEvents(t *testing.T) {
	f := judging(t, &stage{against: "it smells"})
	d := digest.FromString("x")
	by := notify.Cause{
		Request: notify.Request{ID: "1", Addr: "127.0.0.1:1"}, Base: "https://mirror.example",
		Query: oci.Request{Kind: oci.KindManifest, Repo: "team/app", Ref: oci.Reference{Tag: "v1"}, N: -1},
	}
	at := notify.Target{Digest: d, Repository: "team/app", Tag: "v1"}
	f.Emit(notify.Push, "up", "ann", by, at)
	f.Emit(notify.Delete, "up", "ann", by, at)
	p := f.push(t, "v1")
	p.Cause = by
	_, err := f.Pass(t.Context(), p, nothing{})
	r, ok := errors.AsType[*Rejected](err)
	if !ok {
		t.Fatal(err)
	}
	pushed := at
	pushed.URL = "https://mirror.example/v2/team/app/manifests/" + d.String()
	want := []notify.Event{
		{Action: notify.Push, Upstream: "up", Target: pushed, Request: by.Request, Actor: notify.Actor{Name: "ann"}},
		{Action: notify.Delete, Upstream: "up", Target: at, Request: by.Request, Actor: notify.Actor{Name: "ann"}},
		{
			Action: notify.Verdict, Upstream: "up", Request: by.Request, Actor: notify.Actor{Name: "ann"},
			Target:  notify.Target{MediaType: p.Manifest.MediaType, Digest: p.Manifest.Digest, Repository: "team/app", Tag: "v1"},
			Verdict: &notify.Outcome{Result: "reject", Checks: "checks", Findings: 1, Rules: r.Report.Broken(), Report: "https://mirror.example/dray/reports/" + r.Report.ID},
		},
	}
	if diff := cmp.Diff(want, f.told); diff != "" {
		t.Error(diff)
	}
	Events{}.Emit(notify.Push, "up", "ann", by, at)
	Events{}.emitVerdict(r.Report, by)
}
