package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"dray/upstream/oci"
)

// CheckName runs only the name stages. It returns nil if there are no findings and no unknowns.
func (p *Pipeline) CheckName(ctx context.Context, n Name) *Report {
	r := p.newReport(n)
	p.checkNames(ctx, n, r)
	r.finish()
	if len(r.Findings) == 0 && len(r.Unknowns) == 0 {
		return nil
	}
	if !r.Pass {
		p.o.Metrics.count(r)
	}
	return r
}

func (p *Pipeline) checkNames(ctx context.Context, n Name, r *Report) {
	for _, step := range p.o.Steps {
		if s, ok := step.Stage.(NameStage); ok {
			p.run(ctx, step, r, func(ctx context.Context) ([]Finding, error) { return s.CheckName(ctx, n) })
		}
	}
}

// Judge judges a whole image. It returns an error, and no verdict, if the contents cannot be read
// or are malformed, or if ctx has ended.
func (p *Pipeline) Judge(ctx context.Context, s Subject, from Contents) (*Report, error) {
	start := time.Now()
	r := p.newReport(s.Name)
	r.Digest, r.MediaType = s.Manifest.Digest, s.Manifest.MediaType
	p.checkNames(ctx, s.Name, r)
	img, err := assemble(ctx, s, from)
	if large := (*TooLarge)(nil); errors.As(err, &large) {
		r.add(p, Finding{Rule: "document", What: large.what, Fix: "split an index, and leave out of a configuration what the image does not need"}.complete(ArchiveStage, Enforce))
		return p.finish(r, start), nil
	}
	if err != nil {
		return nil, err
	}
	if err := p.addLayers(ctx, img, from, r); err != nil {
		return nil, err
	}
	p.checkImages(ctx, img, r)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return p.finish(r, start), nil
}

// View returns the document of an image, as image stages see it, with the scan results of its
// layers.
func (p *Pipeline) View(ctx context.Context, s Subject, from Contents) (*Image, error) {
	img, err := assemble(ctx, s, from)
	if err != nil {
		return nil, err
	}
	return img, p.addLayers(ctx, img, from, p.newReport(s.Name))
}

// JudgeView judges an image by its document alone. It runs the name stages and the image stages,
// and scans no layer.
func (p *Pipeline) JudgeView(ctx context.Context, img *Image) *Report {
	start := time.Now()
	n := Name{Upstream: img.Upstream, Repository: img.Repository, Tag: img.Tag, Digest: img.Digest, User: img.User}
	r := p.newReport(n)
	p.checkNames(ctx, n, r)
	p.checkImages(ctx, img, r)
	return p.finish(r, start)
}

func (p *Pipeline) finish(r *Report, start time.Time) *Report {
	r.finish()
	r.Seconds = time.Since(start).Seconds()
	p.o.Metrics.count(r)
	return r
}

func (p *Pipeline) newReport(n Name) *Report {
	r := &Report{Checks: p.o.Name, Revision: p.Revision(), Upstream: n.Upstream, Repository: n.Repository, Tag: n.Tag, User: n.User, Digest: n.Digest, At: time.Now().UTC()}
	for _, s := range p.o.Steps {
		r.Stages = append(r.Stages, StageRun{Name: s.Stage.Name(), Revision: s.Stage.Revision(), Mode: s.Mode})
	}
	return r
}

// layersAtOnce bounds the number of layers that one call of Judge or View waits for at the same
// time.
const layersAtOnce = 8

// addLayers adds the results for the layers to the document and the report. It also sets the kind
// of each manifest other than an index, because the kind depends on these results. If a layer
// occurs several times, the findings of its scan are reported only once.
func (p *Pipeline) addLayers(ctx context.Context, img *Image, from Contents, r *Report) error {
	scans, err := p.scanLayers(ctx, img, from)
	if err != nil {
		return err
	}
	for _, m := range img.Manifests {
		for _, l := range m.Layers {
			if s := scans[l.Digest]; s != nil {
				l.see(s)
			}
		}
		if m.Kind != KindIndex {
			m.Kind = kindOf(m)
		}
	}
	reported := map[digest.Digest]bool{}
	for _, m := range img.Manifests {
		for i, l := range m.Layers {
			s := scans[l.Digest]
			if s == nil {
				continue
			}
			if !reported[l.Digest] {
				place := img.LayerPlace(m, i)
				if l.single() {
					place.Path = l.Title()
				}
				p.addScanned(s, place, r)
			}
			reported[l.Digest] = true
			p.checkDescriptor(img, m, i, r)
		}
	}
	return nil
}

// scanLayers requests the results for each layer once, even if several manifests list the layer.
func (p *Pipeline) scanLayers(ctx context.Context, img *Image, from Contents) (map[digest.Digest]*Scanned, error) {
	var mu sync.Mutex // guards scans
	scans := map[digest.Digest]*Scanned{}
	if !p.Scans() {
		return scans, nil
	}
	requested := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(layersAtOnce)
	for _, m := range img.Manifests {
		for _, l := range m.Layers {
			if requested[l.Digest] {
				continue
			}
			requested[l.Digest] = true
			g.Go(func() error {
				s, err := from.Scanned(gctx, oci.Descriptor{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType})
				if l.Foreign && err != nil && gctx.Err() == nil {
					// The judgement goes on without this layer, because the upstream need not have a foreign
					// layer. If the upstream has it, dray scans it, because clients pull it.
					s, err = nil, nil
				}
				mu.Lock()
				defer mu.Unlock()
				scans[l.Digest] = s
				return err
			})
		}
	}
	return scans, g.Wait()
}

// [LayerView.see] adds the result of a scan to the layer.
func (l *LayerView) see(s *Scanned) {
	l.Seen, l.Archive = true, s.Archive
	for stage, result := range s.results {
		l.facts[stage] = result.Facts
	}
}

// addScanned adds the findings and the unknowns of a layer to a report. If the stages got the layer
// as a single file, place.Path is the name of that file.
func (p *Pipeline) addScanned(s *Scanned, place Place, r *Report) {
	unread, file := false, place.Path
	place.Path = ""
	for _, step := range append([]Step{p.archive}, p.layerSteps()...) {
		stage := step.Stage.Name()
		result, ok := s.results[stage]
		rejects := false
		for _, f := range result.Findings {
			path := cmp.Or(f.Where.Path, clean(file, maxPath))
			f.Where = place
			f.Where.Path = path
			f.Mode = step.Mode
			r.add(p, f)
			rejects = rejects || p.waive(f, r.Repository, r.At).Rejects()
			unread = unread || stage == ArchiveStage && f.Mode == Enforce
		}
		if r.More += result.More; result.More > 0 && !rejects {
			r.add(p, MoreFindings(result.More, place).complete(stage, step.Mode)) // without this finding, the image would pass if all listed findings were waived
		}
		if err := s.errs[stage]; err != nil && !ok && !(unread && errors.Is(err, errUnread)) {
			r.unknown(Unknown{Stage: stage, Why: clean(err.Error(), maxWhat), Where: place, OnError: step.OnError})
		}
	}
}

// checkDescriptor adds a finding if the size of a layer differs from the size in its descriptor,
// which the rules about sizes use. If m is of kind image and the stages could not look into the
// layer, checkDescriptor adds the finding of [LayerView.closed], because a client might unpack the
// layer. If the mode is not Enforce, that finding does not reject the image. So checkDescriptor
// then also adds an unknown for each layer stage.
func (p *Pipeline) checkDescriptor(img *Image, m *Manifest, i int, r *Report) {
	l := m.Layers[i]
	where := img.LayerPlace(m, i)
	if l.Archive.Size != l.Size {
		what := fmt.Sprintf("the layer has %[2]d bytes instead of the %[1]d of its manifest", l.Size, l.Archive.Size)
		r.add(p, Finding{Rule: "unreadable", What: what, Fix: rebuild, Where: where}.complete(ArchiveStage, p.archive.Mode))
	}
	f, closed := l.closed()
	if m.Kind != KindImage || !closed {
		return
	}
	f.Where = where
	f.Where.Path = l.Title()
	r.add(p, f.complete(ArchiveStage, p.archive.Mode))
	if p.archive.Mode == Enforce {
		return
	}
	for _, step := range p.layerSteps() {
		r.unknown(Unknown{Stage: step.Stage.Name(), Why: errUnread.Error(), Where: where, OnError: step.OnError})
	}
}

// closed reports whether stages cannot look into a layer of an image. If so, it returns a finding.
func (l *LayerView) closed() (f Finding, closed bool) {
	switch unread := unreadFormats[l.Format]; {
	case l.encrypted():
		return Finding{Rule: "encrypted", What: "the layer is encrypted, so nobody can look into it", Fix: "push it as it is before encryption, or have the rule waived for the repository"}, true
	case unread != "":
		return Finding{Rule: "format", What: "the layer is " + unread + ", which the checks do not read", Fix: "make it an archive that is compressed with gzip or zstd"}, true
	case l.Format == FormatOther:
		return Finding{Rule: "unreadable", What: "the media type of the layer is " + l.MediaType + ", but it is not an archive", Fix: rebuild}, true
	}
	return f, false
}

// checkImages runs the image stages concurrently.
func (p *Pipeline) checkImages(ctx context.Context, img *Image, r *Report) {
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

// run runs one check of a stage under its time limit, and adds the outcome to the report.
func (p *Pipeline) run(ctx context.Context, step Step, r *Report, check func(context.Context) ([]Finding, error)) {
	start := time.Now()
	bounded, cancel := context.WithTimeoutCause(ctx, step.imageTime(), errSlow)
	defer cancel()
	var found []Finding
	err := recovered(func() (err error) { found, err = check(bounded); return err })
	if err == nil && bounded.Err() != nil {
		err = bounded.Err()
	}
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = step.slow(step.imageTime(), "")
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

// JSON returns the image as the JSON document that policies read.
func (i *Image) JSON() ([]byte, error) { return json.Marshal(i) }
