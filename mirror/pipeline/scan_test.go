package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory remembers everything.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (m *memory) Recall(_ context.Context, d digest.Digest, stage, revision string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.m[d.String()+stage+revision]
	return text, ok
}

func (m *memory) Remember(_ context.Context, d digest.Digest, stage, revision string, text []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m[d.String()+stage+revision] = text
}

// called returns the verified digest of the bytes.
func called(layer []byte) func() (digest.Digest, error) {
	return func() (digest.Digest, error) { return digest.FromBytes(layer), nil }
}

// A client may announce the digest of another layer, which is known and harmless. The bytes are
// scanned anyway.
func TestAnnouncedDigestProvesNothing(t *testing.T) {
	notes := &noting{name: "notes"}
	p, err := New(Options{Steps: []Step{{Stage: notes}}, Memory: &memory{m: map[string][]byte{}}})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := archive(t, file{name: "good", text: "x"}), archive(t, file{name: "bad", text: "x"})
	announced := digest.FromBytes(good)
	for i, tc := range []struct {
		sent []byte
		path string // seen by the stage; "" for what memory answers
	}{{good, "good"}, {good, ""}, {bad, "bad"}} {
		notes.seen = nil
		s, err := p.Scan(t.Context(), Layer{Digest: announced}, bytes.NewReader(tc.sent), called(tc.sent))
		if err != nil || s == nil {
			t.Fatalf("scan %d: %v", i, err)
		}
		if (len(notes.seen) > 0) != (tc.path != "") || tc.path != "" && notes.seen[0] != tc.path {
			t.Errorf("scan %d saw %q, want %q", i, notes.seen, tc.path)
		}
	}
	if text, ok := p.o.Memory.Recall(t.Context(), announced, "notes", notes.Revision()); !ok || !json.Valid(text) {
		t.Errorf("of the harmless layer is remembered: %s", text)
	}
}

// A layer that cannot be read is read to its end for its digest. A client that sends the rest
// slowly blocks no worker.
func TestUnreadableLayerYieldsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Workers: NewWorkers(1)})
		if err != nil {
			t.Fatal(err)
		}
		scan := func(r io.Reader) error {
			_, err := p.Scan(t.Context(), Layer{}, r, called(nil))
			return err
		}
		r, w := io.Pipe()
		slow := make(chan error, 1)
		go func() { slow <- scan(r) }()
		_, _ = w.Write([]byte("\x1f\x8b\x08 this is no gzip"))
		synctest.Wait()
		other := make(chan error, 1)
		go func() { other <- scan(bytes.NewReader(archive(t, file{name: "a"}))) }()
		synctest.Wait()
		select {
		case err := <-other:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the other layer waits for the client of the unreadable one")
		}
		w.Close()
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}

// A waiver lets only the findings that it matches pass, and hides no others, however many there
// are.
func TestWaivedFindingsHideNoOthers(t *testing.T) {
	waived := make([]Finding, MaxLayerFindings)
	for i := range waived {
		waived[i] = Finding{Rule: "key", What: "a key", Where: Place{Path: fmt.Sprintf("test/%d", i)}}
	}
	secret := Finding{Rule: "key", What: "a key", Where: Place{Path: "app/key"}}
	layer := archive(t, file{name: "a", text: "x"})
	for _, tc := range []struct {
		found []Finding
		mode  Mode
		pass  bool
	}{{waived, Enforce, true}, {append(slices.Clone(waived), secret), Enforce, false}, {append(slices.Clone(waived), secret), Warn, true}} {
		stage := &noting{name: "notes", found: tc.found}
		p, err := New(Options{Steps: []Step{{Stage: stage, Mode: tc.mode}}, Waivers: []Waiver{{Path: "test/*", Reason: "fixtures"}}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Scan(t.Context(), Layer{}, bytes.NewReader(layer), called(layer))
		if err != nil {
			t.Fatal(err)
		}
		r := &Report{}
		p.addScanned(s, Place{}, r)
		if r.finish(); r.Pass != tc.pass {
			t.Errorf("%d findings with %s: pass is %v: %s", len(tc.found), tc.mode, r.Pass, r.Message(""))
		}
	}
}

// Refuses is true if the findings or the unknowns of a layer reject every image that has it.
func TestRefusesWhatRejects(t *testing.T) {
	layer := archive(t, file{name: "a", text: "x"})
	found := []Finding{{Rule: "key", What: "a key", Where: Place{Path: "a"}}}
	broken := func([]byte) error { return errors.New("no answer") }
	for name, tc := range map[string]struct {
		stage noting
		step  Step
		waive string
		want  bool
	}{
		"nothing":                 {},
		"a finding":               {stage: noting{found: found}, want: true},
		"a warning":               {stage: noting{found: found}, step: Step{Mode: Warn}},
		"a waived finding":        {stage: noting{found: found}, waive: "a"},
		"no answer":               {stage: noting{data: broken}, want: true},
		"no answer, which may be": {stage: noting{data: broken}, step: Step{OnError: Allow}},
		"no answer, and a waiver": {stage: noting{data: broken}, waive: "a", want: true},
	} {
		tc.stage.name, tc.step.Stage = "notes", &tc.stage
		p, err := New(Options{Steps: []Step{tc.step}, Waivers: []Waiver{{Path: cmp.Or(tc.waive, "nowhere")}}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Scan(t.Context(), Layer{}, bytes.NewReader(layer), called(layer))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Refuses(s, "app"); got != tc.want {
			t.Errorf("%s: refused is %v", name, got)
		}
		if got, want := s.Complete(), tc.stage.data == nil; got != want {
			t.Errorf("%s: complete is %v", name, got)
		}
	}
}

// A scanner that names a rule after each vulnerability adds a bounded number of time series.
func TestRulesOfServicesAreBoundedAsLabels(t *testing.T) {
	m := NewMetrics()
	for i := range maxRuleLabels + 10 {
		m.count(&Report{Checks: "c", Findings: []Finding{{Stage: "exec", Rule: fmt.Sprintf("cve-%d", i), Mode: Warn}}})
	}
	m.count(&Report{Checks: "c", Findings: []Finding{{Stage: "exec", Rule: "cve-0", Mode: Warn}}})
	if n := testutil.CollectAndCount(m.findings); n != maxRuleLabels+1 {
		t.Errorf("%d series", n)
	}
	for rule, want := range map[string]float64{"cve-0": 2, otherRule: 10} {
		if got := testutil.ToFloat64(m.findings.WithLabelValues("c", "exec", rule, string(Warn))); got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}

// However many findings there are, those that weigh less keep no other out of the report.
func TestWaivedFindingsHideNoWarnings(t *testing.T) {
	p, err := New(Options{Waivers: []Waiver{{Rule: "agreed"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{}
	add := func(rule string, mode Mode, n int) {
		for i := range n {
			r.add(p, Finding{Rule: rule, What: fmt.Sprint(i)}.complete("s", mode))
		}
	}
	add("agreed", Enforce, 4*maxGathered)
	add("odd", Warn, 3*maxGathered)
	add("bad", Enforce, 2)
	add("agreed", Enforce, 1) // told already
	r.finish()
	if len(r.Findings) != MaxFindings || r.More != 7*maxGathered+2-MaxFindings || r.Pass {
		t.Errorf("%d findings and %d more", len(r.Findings), r.More)
	}
	for i, f := range r.Findings {
		if want := map[bool]string{true: "bad", false: "odd"}[i < 2]; f.Rule != want {
			t.Fatalf("finding %d is %s", i, f.Rule)
		}
	}
}
