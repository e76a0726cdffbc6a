package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dray/upstream/oci"
)

// Subject is what is judged.
type Subject struct {
	Name
	Manifest *oci.Manifest
	// Part says that it waits for an index or a tag that refers to it.
	Part bool
}

// CheckName decides by names alone, before any byte. It returns a report only where
// something is to be said.
func (p *Pipeline) CheckName(ctx context.Context, n Name) *Report {
	r := p.report(n)
	p.names(ctx, n, r)
	r.finish()
	if len(r.Findings) == 0 && len(r.Unknowns) == 0 {
		return nil
	}
	if !r.Pass {
		p.o.Metrics.count(r)
	}
	return r
}

func (p *Pipeline) names(ctx context.Context, n Name, r *Report) {
	for _, step := range p.o.Steps {
		if s, ok := step.Stage.(NameStage); ok {
			p.run(ctx, step, r, func(ctx context.Context) ([]Finding, error) { return s.CheckName(ctx, n) })
		}
	}
}

// Judge looks at a whole image. The error is that of the contents or of ctx: then
// nothing was decided.
func (p *Pipeline) Judge(ctx context.Context, s Subject, from Contents) (*Report, error) {
	start := time.Now()
	r := p.report(s.Name)
	r.Digest, r.MediaType = s.Manifest.Digest, s.Manifest.MediaType
	p.names(ctx, s.Name, r)
	img, err := assemble(ctx, s, from)
	if large := (*TooLarge)(nil); errors.As(err, &large) {
		r.add(p, Finding{Rule: "document", What: large.what, Fix: "push it in parts"}.complete(ArchiveStage, Enforce))
		return p.finish(r, start), nil
	}
	if err != nil {
		return nil, err
	}
	if err := p.layers(ctx, img, from, r); err != nil {
		return nil, err
	}
	p.images(ctx, img, r)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return p.finish(r, start), nil
}

// View is the document that image checks and rules see of an image, with what there is to know of
// its layers.
func (p *Pipeline) View(ctx context.Context, s Subject, from Contents) (*Image, error) {
	img, err := assemble(ctx, s, from)
	if err != nil {
		return nil, err
	}
	return img, p.layers(ctx, img, from, p.report(s.Name))
}

// JudgeView judges an image of which there is nothing but its document, by names and image checks.
func (p *Pipeline) JudgeView(ctx context.Context, img *Image) *Report {
	start := time.Now()
	n := Name{Upstream: img.Upstream, Repository: img.Repository, Tag: img.Tag, Digest: img.Digest, User: img.User}
	r := p.report(n)
	p.names(ctx, n, r)
	p.images(ctx, img, r)
	return p.finish(r, start)
}

func (p *Pipeline) finish(r *Report, start time.Time) *Report {
	r.finish()
	r.Seconds = time.Since(start).Seconds()
	p.o.Metrics.count(r)
	return r
}

func (p *Pipeline) report(n Name) *Report {
	r := &Report{Checks: p.o.Name, Revision: p.Revision(), Upstream: n.Upstream, Repository: n.Repository, Tag: n.Tag, User: n.User, Digest: n.Digest, At: time.Now().UTC()}
	for _, s := range p.o.Steps {
		r.Stages = append(r.Stages, StageRun{Name: s.Stage.Name(), Revision: s.Stage.Revision(), Mode: s.Mode})
	}
	return r
}

// layersAtOnce bounds the layers that one judgement waits for side by side.
const layersAtOnce = 8

// layers gathers what stages found in the layers. Each layer is asked for once, however
// many images have it, and its findings are reported where it comes first.
func (p *Pipeline) layers(ctx context.Context, img *Image, from Contents, r *Report) error {
	if !p.Scans() {
		return nil
	}
	var mu sync.Mutex // guards scans
	scans := map[*LayerView]*Scanned{}
	first := map[string]*LayerView{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(layersAtOnce)
	for _, m := range img.Manifests {
		for _, l := range m.Layers {
			if first[l.Digest.String()] != nil {
				continue
			}
			first[l.Digest.String()] = l
			g.Go(func() error {
				s, err := from.Scanned(gctx, oci.Descriptor{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType})
				if l.Foreign && err != nil && gctx.Err() == nil {
					s, err = nil, nil // it may be elsewhere; but clients take it from here where it is
				}
				mu.Lock()
				defer mu.Unlock()
				scans[l] = s
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range img.Manifests {
		for i, l := range m.Layers {
			if s := scans[first[l.Digest.String()]]; s != nil {
				p.layer(img, m, i, s, r, first[l.Digest.String()] == l)
			}
		}
	}
	return nil
}

// layer puts what is known of one layer into the document and, the first time, into
// the report.
func (p *Pipeline) layer(img *Image, m *Manifest, i int, s *Scanned, r *Report, report bool) {
	l := m.Layers[i]
	l.Seen, l.Archive = true, s.Archive
	for stage, result := range s.results {
		l.facts[stage] = result.Facts
	}
	if !report {
		return
	}
	p.found(s, img.LayerPlace(m, i), r)
	p.misnamed(img, m, i, r)
}

// found puts what stages found in a layer, and what they could not tell of it, into a report.
func (p *Pipeline) found(s *Scanned, at Place, r *Report) {
	unread := false
	for _, step := range append([]Step{p.archive}, p.layerSteps()...) {
		stage := step.Stage.Name()
		result, ok := s.results[stage]
		rejects := false
		for _, f := range result.Findings {
			at.Path = f.Where.Path
			f.Where = at
			f.Mode = step.Mode
			r.add(p, f)
			rejects = rejects || p.waive(f, r.Repository, r.At).Rejects()
			unread = unread || stage == ArchiveStage && f.Mode == Enforce
		}
		if r.More += result.More; result.More > 0 && !rejects {
			at.Path = ""
			r.add(p, Further(result.More, at).complete(stage, step.Mode)) // what is waived must not hide what is not
		}
		if err := s.errs[stage]; err != nil && !ok && !(unread && errors.Is(err, errUnread)) {
			at.Path = ""
			r.unknown(Unknown{Stage: stage, Why: clean(err.Error(), maxWhat), Where: at, OnError: step.OnError})
		}
	}
}

// wrong adds a finding about what a manifest says of a layer.
func (p *Pipeline) wrong(img *Image, m *Manifest, i int, r *Report, what string) {
	f := Finding{Rule: "unreadable", What: what, Fix: "build and push the image again", Where: img.LayerPlace(m, i)}
	r.add(p, f.complete(ArchiveStage, p.archive.Mode))
}

// misnamed finds a layer that is not what its manifest says: nobody has looked into what
// is no archive, but a client might manage to; and rules about sizes go by the manifest.
func (p *Pipeline) misnamed(img *Image, m *Manifest, i int, r *Report) {
	l := m.Layers[i]
	if l.Archive.Size != l.Size {
		p.wrong(img, m, i, r, fmt.Sprintf("the manifest says that the layer has %d bytes, it has %d", l.Size, l.Archive.Size))
	}
	if m.Kind == KindImage && strings.Contains(l.MediaType, "tar") && l.Format == FormatOther {
		p.wrong(img, m, i, r, "the layer is said to be "+l.MediaType+", and is no archive")
	}
}

// images runs the image stages, side by side.
func (p *Pipeline) images(ctx context.Context, img *Image, r *Report) {
	var wg sync.WaitGroup
	for _, step := range p.o.Steps {
		if s, ok := step.Stage.(ImageStage); ok {
			wg.Go(func() {
				p.run(ctx, step, r, func(ctx context.Context) ([]Finding, error) { return s.CheckImage(ctx, img) })
			})
		}
	}
	wg.Wait()
}

// run gives a stage its time, and puts what came of it into the report.
func (p *Pipeline) run(ctx context.Context, step Step, r *Report, check func(context.Context) ([]Finding, error)) {
	start := time.Now()
	bounded, cancel := context.WithTimeoutCause(ctx, step.imageTime(), errSlow)
	defer cancel()
	var found []Finding
	err := contained(func() (err error) { found, err = check(bounded); return err })
	if err == nil && bounded.Err() != nil {
		err = bounded.Err()
	}
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %v", errSlow, step.imageTime())
	}
	stage := step.Stage.Name()
	p.o.Metrics.seconds.WithLabelValues(stage).Observe(time.Since(start).Seconds())
	for _, f := range found {
		r.add(p, f.complete(stage, step.Mode))
	}
	if err != nil {
		r.unknown(Unknown{Stage: stage, Why: clean(err.Error(), maxWhat), OnError: step.OnError})
	}
}

// JSON is the document that policies see.
func (i *Image) JSON() ([]byte, error) { return json.Marshal(i) }
