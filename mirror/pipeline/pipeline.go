package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/pattern"
)

// Waiver is an operator's decision to let matching findings pass.
type Waiver struct {
	// Repositories and Path are patterns in which * matches any characters. An empty field matches
	// everything.
	Repositories []string
	// Stage, Rule and Fingerprint are values of a finding; empty matches any.
	Stage, Rule, Fingerprint string
	Path                     string
	// Reason is shown in reports.
	Reason string
	// Until is the time at which the waiver expires; zero means never.
	Until time.Time
}

// Options configure a Pipeline.
type Options struct {
	// Name is the name of the pipeline in metrics and reports.
	Name  string
	Steps []Step
	// Limits bound the walk, which reads the files of each layer and passes them to the stages. The
	// walk itself reports faults of a layer, such as a limit that the layer exceeds; ArchiveMode is
	// the mode of these findings. If ArchiveMode is Off, the walk reads layers only if there is a
	// LayerStage, and its findings have the mode Warn.
	Limits      Limits
	ArchiveMode Mode
	Waivers     []Waiver
	// Memory stores the results for layers. If Memory is nil, no result is stored.
	Memory Memory
	// Workers bounds the number of layers that are scanned at a time. Pipelines that share Workers
	// share this bound. If Workers is nil, New makes Workers for this pipeline alone.
	Workers *Workers
	// Metrics are shared by all pipelines of a process. If Metrics is nil, nothing is exported.
	Metrics *Metrics
}

// Pipeline checks the images of some repositories.
type Pipeline struct {
	o Options
	// archive is the step under whose name the walk reports its findings.
	archive Step
}

// New makes a pipeline. It returns an error if a step has no stage, if a stage has no name, or if
// two stages have the same name.
func New(o Options) (*Pipeline, error) {
	o.Limits = o.Limits.withDefaults()
	o.Workers = cmp.Or(o.Workers, NewWorkers(runtime.GOMAXPROCS(0)))
	o.Metrics = cmp.Or(o.Metrics, NewMetrics())
	o.Memory = cmp.Or[Memory](o.Memory, noMemory{})
	o.ArchiveMode = cmp.Or(o.ArchiveMode, Enforce)
	p := &Pipeline{o: o, archive: Step{Stage: walkStage{o.Limits}, Mode: o.ArchiveMode, OnError: Reject}}
	if o.ArchiveMode == Off {
		p.archive.Mode = Warn
	}
	seen := map[string]bool{ArchiveStage: true}
	steps := p.o.Steps
	p.o.Steps = nil
	for _, s := range steps {
		if s.Stage == nil || s.Stage.Name() == "" {
			return nil, errors.New("pipeline: a step without a stage")
		}
		if seen[s.Stage.Name()] {
			return nil, fmt.Errorf("pipeline: two stages are named %q", s.Stage.Name())
		}
		seen[s.Stage.Name()] = true
		if s.Mode == Off {
			continue
		}
		s.Mode, s.OnError = cmp.Or(s.Mode, Enforce), cmp.Or(s.OnError, Reject)
		p.o.Steps = append(p.o.Steps, s)
	}
	return p, nil
}

// Name returns the pipeline's name.
func (p *Pipeline) Name() string { return p.o.Name }

// Revision returns a hash of the limits, and of the revision, mode and OnError of every stage.
func (p *Pipeline) Revision() string {
	parts := []string{p.archive.Stage.Revision()}
	for _, s := range p.o.Steps {
		parts = append(parts, s.Stage.Name(), s.Stage.Revision(), string(s.Mode), string(s.OnError))
	}
	return Fingerprint(parts...)
}

// Scans reports whether layers are walked at all.
func (p *Pipeline) Scans() bool { return p.o.ArchiveMode != Off || len(p.layerSteps()) > 0 }

func (p *Pipeline) layerSteps() []Step {
	var steps []Step
	for _, s := range p.o.Steps {
		if _, ok := s.Stage.(LayerStage); ok {
			steps = append(steps, s)
		}
	}
	return steps
}

// walkStage presents the walk as a stage with a name and a revision. It implements no checks.
type walkStage struct{ limits Limits }

func (walkStage) Name() string       { return ArchiveStage }
func (w walkStage) Revision() string { return Revision(walkVersion, w.limits) }

// waive returns the finding, marked as waived if a waiver applies.
func (p *Pipeline) waive(f Finding, repo string, now time.Time) Finding {
	for _, w := range p.o.Waivers {
		if w.applies(f, repo, now) {
			f.Waived = cmp.Or(w.Reason, "waived")
			return f
		}
	}
	return f
}

func (w Waiver) applies(f Finding, repo string, now time.Time) bool {
	switch {
	case !w.Until.IsZero() && now.After(w.Until),
		w.Stage != "" && w.Stage != f.Stage,
		w.Rule != "" && w.Rule != f.Rule,
		w.Fingerprint != "" && w.Fingerprint != f.Fingerprint,
		w.Path != "" && !pattern.Match(w.Path, f.Where.Path):
		return false
	}
	return len(w.Repositories) == 0 || pattern.Any(w.Repositories, repo)
}

// Metrics count findings and verdicts, and measure the work of stages. Most labels come from the
// configuration, but webhooks and scanners can return any number of rules. So only the first
// maxRuleLabels rules get a label of their own. All further rules are counted as otherRule.
type Metrics struct {
	findings *prometheus.CounterVec
	verdicts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	scanned  *prometheus.CounterVec
	bytes    prometheus.Counter

	mu    sync.Mutex         // guards rules
	rules map[[2]string]bool // by stage and rule
}

const (
	maxRuleLabels = 2000
	otherRule     = "other"
)

// rule returns the label of a rule: its name, or otherRule for rules beyond maxRuleLabels.
func (m *Metrics) rule(stage, rule string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := [2]string{stage, rule}; !m.rules[key] {
		if len(m.rules) >= maxRuleLabels {
			return otherRule
		}
		m.rules[key] = true
	}
	return rule
}

// NewMetrics makes the metrics of all pipelines of a process.
func NewMetrics() *Metrics {
	return &Metrics{
		rules: map[[2]string]bool{},
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_check_findings_total",
			Help: "Findings in pushed images, by checks, stage, rule and mode: enforce, warn or waived."}, []string{"checks", "stage", "rule", "mode"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_check_verdicts_total",
			Help: "Verdicts on pushed images, by checks and verdict: pass, reject, or unknown (rejected only because a stage gave no result)."}, []string{"checks", "verdict"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dray_check_seconds",
			Help: "Time that a stage took for one layer or image.", Buckets: []float64{.001, .01, .1, .5, 1, 5, 10, 30, 120}}, []string{"stage"}),
		scanned: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_check_layers_total",
			Help: "Layers of pushed images that stages had to check, by the source of the result: walk (dray read the layer) or memory (an earlier result)."}, []string{"source"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_check_walked_bytes_total", Help: "Uncompressed bytes of the layers that dray read for checks."}),
	}
}

// Collectors returns the metrics.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.findings, m.verdicts, m.seconds, m.scanned, m.bytes}
}

func (m *Metrics) count(r *Report) {
	for _, f := range r.Findings {
		mode := string(f.Mode)
		if f.Waived != "" {
			mode = "waived"
		}
		m.findings.WithLabelValues(r.Checks, f.Stage, m.rule(f.Stage, f.Rule), mode).Inc()
	}
	m.verdicts.WithLabelValues(r.Checks, r.Outcome()).Inc()
}

// Memory stores the results of stages for layers. If it loses a result, the layer is scanned again.
type Memory interface {
	// Recall returns the stored result. The bool is false if there is none.
	Recall(ctx context.Context, layer digest.Digest, stage, revision string) ([]byte, bool)
	// Remember stores the result of a stage, which is JSON. The Memory decides how long the result is
	// stored.
	Remember(ctx context.Context, layer digest.Digest, stage, revision string, answer []byte)
}

type noMemory struct{}

func (noMemory) Recall(context.Context, digest.Digest, string, string) ([]byte, bool) {
	return nil, false
}
func (noMemory) Remember(context.Context, digest.Digest, string, string, []byte) {}
