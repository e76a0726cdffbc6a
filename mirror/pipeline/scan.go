package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Workers bound how many layers are worked on at a time. Who waits for bytes of a
// client does not count, so that a slow client keeps nobody from working.
type Workers struct{ slots chan struct{} }

// NewWorkers makes room for n layers at a time.
func NewWorkers(n int) *Workers { return &Workers{slots: make(chan struct{}, max(1, n))} }

// yielding gives up its slot while it waits for bytes.
type yielding struct {
	r io.Reader
	w *Workers
}

func (y *yielding) Read(p []byte) (int, error) {
	<-y.w.slots
	defer func() { y.w.slots <- struct{}{} }()
	return y.r.Read(p)
}

// Scanned is what all stages found in one layer.
type Scanned struct {
	Archive Archive
	// results by stage; errs has the stages that could not tell.
	results map[string]LayerResult
	errs    map[string]error
}

// archiveAnswer is what is remembered of the walk itself.
type archiveAnswer struct {
	Archive  Archive   `json:"archive"`
	Findings []Finding `json:"findings,omitempty"`
}

// walkBuffers hold the content of files on its way to the visitors.
var walkBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Scan walks a layer for all stages that have not seen it, and remembers what they
// found. r gives the whole layer as stored, and io.EOF only when its digest is
// verified; name tells the verified digest, and waits for it. The error is that of r, of
// name, or ctx's: what is wrong with the layer is a finding.
func (p *Pipeline) Scan(ctx context.Context, l Layer, r io.Reader, name func() (digest.Digest, error)) (*Scanned, error) {
	if s, err := p.recallVerified(ctx, l.Digest, name); s != nil || err != nil {
		return s, err
	}
	w := p.o.Workers
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-w.slots }()
	participants := p.participants(ctx, l)
	buf := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	archive, err := walk(ctx, &yielding{r, w}, p.o.Limits, audience{participants: participants, buf: *buf})
	fault, own := errors.AsType[*broken](err)
	s := &Scanned{Archive: archive, results: map[string]LayerResult{}, errs: map[string]error{}}
	for _, seat := range participants {
		stage := seat.step.Stage.Name()
		result, cerr := seat.close(err == nil)
		p.o.Metrics.seconds.WithLabelValues(stage).Observe(seat.spent.Seconds())
		switch {
		case cerr != nil:
			s.errs[stage] = cerr
		case err != nil:
			s.errs[stage] = errUnread
		default:
			s.results[stage] = result
		}
	}
	if err != nil && !own {
		return nil, err
	}
	if own {
		s.results[ArchiveStage] = LayerResult{Findings: []Finding{fault.finding().complete(ArchiveStage, "")}}
		// The rest of the layer is needed for its digest, and for nothing else.
		rest, err := io.Copy(io.Discard, &yielding{r, w})
		if err != nil {
			return nil, err
		}
		s.Archive.Size += rest
	}
	p.o.Metrics.bytes.Add(float64(archive.Uncompressed))
	p.o.Metrics.scanned.WithLabelValues("walk").Inc()
	d, err := name()
	if err != nil {
		return nil, err
	}
	p.remember(ctx, d, s)
	return s, nil
}

// recallVerified is what is remembered of a layer, once it has turned out to be the one that its
// client announced. It is nil where a walk is needed.
func (p *Pipeline) recallVerified(ctx context.Context, announced digest.Digest, name func() (digest.Digest, error)) (*Scanned, error) {
	if announced == "" {
		return nil, nil
	}
	s, complete := p.Recall(ctx, announced)
	if !complete {
		return nil, nil
	}
	if d, err := name(); err != nil || d == announced {
		return s, err
	}
	return nil, nil
}

// errUnread is why a stage knows nothing about a layer that exceeds a limit.
var errUnread = errors.New("the layer could not be looked at to its end")

func (p *Pipeline) participants(ctx context.Context, l Layer) []*participant {
	var participants []*participant
	for _, step := range p.layerSteps() {
		s := &participant{step: step, visitor: absent{}}
		s.do(func() error {
			v, err := step.Stage.(LayerStage).Open(ctx, l)
			if err == nil && v != nil {
				s.visitor = v
			}
			return err
		})
		participants = append(participants, s)
	}
	return participants
}

// absent is the visitor of a stage that has none for a layer.
type absent struct{}

func (absent) Begin(*Entry) (bool, error)      { return false, nil }
func (absent) Data([]byte) error               { return nil }
func (absent) End() error                      { return nil }
func (absent) Close(bool) (LayerResult, error) { return LayerResult{}, nil }

func (p *Pipeline) remember(ctx context.Context, d digest.Digest, s *Scanned) {
	keep := func(step Step, v any) {
		if text, err := json.Marshal(v); err == nil {
			p.o.Memory.Remember(ctx, d, step.Stage.Name(), step.Stage.Revision(), text)
		}
	}
	keep(p.archive, archiveAnswer{s.Archive, s.results[ArchiveStage].Findings})
	for _, step := range p.layerSteps() {
		if r, ok := s.results[step.Stage.Name()]; ok {
			keep(step, r)
		}
	}
}

// Recall is what is remembered of a layer; complete tells whether every stage has
// seen it, or will never see more of it.
func (p *Pipeline) Recall(ctx context.Context, d digest.Digest) (s *Scanned, complete bool) {
	s = &Scanned{results: map[string]LayerResult{}, errs: map[string]error{}}
	var walked archiveAnswer
	if !p.recall(ctx, d, p.archive, &walked) {
		return s, false
	}
	s.Archive = walked.Archive
	if len(walked.Findings) > 0 {
		s.results[ArchiveStage] = LayerResult{Findings: walked.Findings}
		for _, step := range p.layerSteps() {
			s.errs[step.Stage.Name()] = errUnread
		}
		return s, true
	}
	for _, step := range p.layerSteps() {
		var r LayerResult
		if !p.recall(ctx, d, step, &r) {
			return s, false
		}
		s.results[step.Stage.Name()] = r
	}
	p.o.Metrics.scanned.WithLabelValues("memory").Inc()
	return s, true
}

func (p *Pipeline) recall(ctx context.Context, d digest.Digest, step Step, into any) bool {
	text, ok := p.o.Memory.Recall(ctx, d, step.Stage.Name(), step.Stage.Revision())
	return ok && json.Unmarshal(text, into) == nil
}

// Refuses reports whether what was found in the layer, or what is unknown of it, keeps any image
// out that has it.
func (p *Pipeline) Refuses(s *Scanned, repo string) bool {
	r := &Report{Repository: repo, At: time.Now().UTC()}
	p.found(s, Place{}, r)
	r.finish()
	return !r.Pass
}

// Complete reports whether every stage could tell, or never will: another look would find the same.
func (s *Scanned) Complete() bool {
	for _, err := range s.errs {
		if !errors.Is(err, errUnread) {
			return false
		}
	}
	return true
}
