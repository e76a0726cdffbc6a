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

// yieldingReader gives up the slot of its layer (see [Workers]) while it waits for bytes.
type yieldingReader struct {
	r io.Reader
	w *Workers
}

func (y *yieldingReader) Read(p []byte) (int, error) {
	<-y.w.slots
	defer func() { y.w.slots <- struct{}{} }()
	return y.r.Read(p)
}

// archiveAnswer is what dray remembers of the walk of a layer. Findings are the walk's own: dray
// remembers the results of the stages separately.
type archiveAnswer struct {
	Archive  Archive   `json:"archive"`
	Findings []Finding `json:"findings,omitempty"`
}

// walkBuffers hold the content of files while visitors read it.
var walkBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Scan returns the remembered results for a layer if they are complete. Otherwise it walks the
// layer for all stages, and remembers the results. r reads the whole layer as stored, and returns
// io.EOF only after the digest of the layer was verified. The call name() waits for the verified
// digest and returns it. The error comes from r, name() or ctx. A fault of the layer itself is no
// error, but a finding.
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
	participants := p.openVisitors(ctx, l)
	buf := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	archive, err := walk(ctx, &yieldingReader{r, w}, p.o.Limits, w, fanOut{participants: participants, buf: *buf})
	fault, own := errors.AsType[*layerFault](err)
	s := &Scanned{Archive: archive, results: map[string]LayerResult{}, errs: map[string]error{}}
	for _, part := range participants {
		stage := part.step.Stage.Name()
		result, cerr := part.close(err == nil)
		p.o.Metrics.seconds.WithLabelValues(stage).Observe(part.spent.Seconds())
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
		// Read the rest of the layer only to verify its digest and to count its bytes.
		rest, err := io.Copy(io.Discard, &yieldingReader{r, w})
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

// recallVerified returns the remembered results for the announced digest. If they are complete, it
// first waits for the verified digest. If they are not complete, or if the verified digest differs
// from the announced one, it returns nil, and the layer must be walked.
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

// errUnread is the error of stages that have not seen a layer completely: the walk stopped at a
// fault, such as an exceeded limit, or could not look into the layer.
var errUnread = errors.New("the layer was not read completely")

func (p *Pipeline) openVisitors(ctx context.Context, l Layer) []*participant {
	var participants []*participant
	for _, step := range p.layerSteps() {
		s := &participant{step: step, visitor: noVisitor{}}
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

// Recall returns the remembered results for a layer. complete is true if all stages have a result,
// or if a fault of the layer stopped the walk. In both cases, another walk would find nothing new.
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

// Refuses reports whether the results for a layer already reject every image with the layer.
func (p *Pipeline) Refuses(s *Scanned, repo string) bool {
	r := &Report{Repository: repo, At: time.Now().UTC()}
	p.addScanned(s, Place{}, r)
	r.finish()
	return !r.Pass
}
