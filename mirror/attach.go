package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/pipeline"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// MediaTypeVerdict is the artifact type of a verdict that is attached to an image, and the media type of its one layer, the JSON of
// [pipeline.Report.Statement].
const MediaTypeVerdict = "application/vnd.dray.verdict.v1+json"

// mediaTypeEmpty is the type of a configuration that says nothing (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const mediaTypeEmpty = "application/vnd.oci.empty.v1+json"

var emptyJSON = []byte("{}")

const (
	// maxAttachments bounds the verdicts that wait to be attached.
	maxAttachments = 1024
	// attachWithin bounds the requests of one.
	attachWithin = 2 * time.Minute
)

// attachPauses are before each further try. The sum is longer than a registry is usually down, and than a push usually waits in the queue.
var attachPauses = []time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

// attachment is a verdict on its way to the image that it is about.
type attachment struct {
	up      *Upstream
	repo    string
	ref     oci.Reference
	subject oci.Descriptor
	report  *pipeline.Report
}

// remote is the image's repository at its upstream, for requests that no client waits for.
func (a attachment) remote() upstream.Repo { return a.up.remote(a.repo).With(inBackground()) }

// attach has a verdict put beside an image that is on its way to the upstream or there. It never waits.
func (m *Mirror) attach(p plea, r *pipeline.Report) {
	if p.gate == nil || !p.gate.Attach || r == nil || p.man.Subject != nil || oci.DerivedTag(p.ref.Tag) {
		return
	}
	subject := oci.Descriptor{MediaType: p.man.MediaType, Digest: p.man.Digest, Size: int64(len(p.man.Raw))}
	if !m.attachments.Add(attachment{up: p.up, repo: p.repo, ref: p.ref, subject: subject, report: r}) {
		m.metrics.attached.WithLabelValues(p.up.Name, "dropped").Inc()
	}
}

// attaches reports whether any gate has its verdicts attached.
func (m *Mirror) attaches() bool {
	for _, up := range m.upstreams {
		for _, g := range up.Gates {
			if g.Attach {
				return true
			}
		}
	}
	return false
}

// attachOne is the worker's part of attach.
func (m *Mirror) attachOne(ctx context.Context, c flight.Job[attachment]) {
	a := c.Value
	if _, waits := m.queue.Find(a.up.Name, a.repo, a.ref.String()); waits {
		m.attachAgain(c, errStillQueued)
		return
	}
	bounded, cancel := context.WithTimeout(ctx, attachWithin)
	defer cancel()
	result, err := m.putVerdict(bounded, a)
	if err != nil && ctx.Err() == nil {
		if !isRefusal(err) || upstream.Transient(err) || errors.Is(err, upstream.ErrCredentials) {
			m.attachAgain(c, err)
			return
		}
		m.notAttached(a, err)
		return
	}
	if err == nil {
		m.metrics.attached.WithLabelValues(a.up.Name, result).Inc()
	}
}

// errStillQueued is why a verdict waits.
var errStillQueued = errors.New("the image is still on its way")

func (m *Mirror) attachAgain(c flight.Job[attachment], err error) {
	if !m.attachments.Retry(c, attachPauses) {
		m.notAttached(c.Value, err)
	}
}

func (m *Mirror) notAttached(a attachment, err error) {
	m.metrics.attached.WithLabelValues(a.up.Name, "failed").Inc()
	m.log.Warn("verdict not attached", "upstream", a.up.Name, "repository", a.repo, "digest", a.subject.Digest, "error", err)
}

// putVerdict brings the artifact to the upstream, unless it is there. The same verdict is always the same artifact.
func (m *Mirror) putVerdict(ctx context.Context, a attachment) (result string, err error) {
	statement, err := a.report.Statement()
	if err != nil {
		return "", err
	}
	man, err := artifact(a.subject, statement, a.report)
	if err != nil {
		return "", err
	}
	if there, err := m.attachedBefore(ctx, a, man); there || err != nil {
		return "there", err
	}
	pushed, err := m.sendArtifact(ctx, a, man, statement)
	if errors.Is(err, upstream.ErrPartsMissing) {
		m.forgetChildren(ctx, a.up, a.repo, man)
		pushed, err = m.sendArtifact(ctx, a, man, statement)
	}
	if err == nil && pushed.Subject == "" {
		err = m.listByTag(ctx, a, man)
	}
	if err != nil {
		return "", err
	}
	// Only now, so that a try which ended before the tag was written does not count as the whole.
	m.landed(ctx, a.up, a.repo, oci.Reference{Digest: man.Digest}, man, ownChildren(man))
	return "attached", nil
}

// sendArtifact brings the artifact of a verdict to the upstream, after its blobs.
func (m *Mirror) sendArtifact(ctx context.Context, a attachment, man *oci.Manifest, statement []byte) (upstream.Pushed, error) {
	for _, blob := range [][]byte{emptyJSON, statement} {
		if err := m.sendSmall(ctx, a, blob); err != nil {
			return upstream.Pushed{}, err
		}
	}
	return a.up.Sink.PutManifest(ctx, a.remote(), oci.Reference{Digest: man.Digest}, man)
}

// attachedBefore reports whether the upstream has the artifact. What is remembered of that is asked for: it may have been deleted there
// with the image, which is now pushed again.
func (m *Mirror) attachedBefore(ctx context.Context, a attachment, man *oci.Manifest) (bool, error) {
	if _, err := m.known.Get(ctx, a.up.Name, a.repo, man.Digest); err != nil {
		return false, nil
	}
	_, err := a.up.Source.StatManifest(ctx, a.remote(), oci.Reference{Digest: man.Digest}, anyManifest)
	if !oci.NotFound(err) {
		return err == nil, err
	}
	m.recorded(m.known.Forget(ctx, a.up.Name, a.repo, man.Digest))
	m.forgetChildren(ctx, a.up, a.repo, man)
	return false, nil
}

// artifact makes the manifest of a verdict (image-spec, manifest.md, "Guidelines for Artifact Usage").
func artifact(subject oci.Descriptor, statement []byte, r *pipeline.Report) (*oci.Manifest, error) {
	describe := func(mediaType string, p []byte) oci.Descriptor {
		return oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(p), Size: int64(len(p))}
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        oci.Descriptor    `json:"config"`
		Layers        []oci.Descriptor  `json:"layers"`
		Subject       oci.Descriptor    `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}{
		2, oci.MediaTypeOCIManifest, MediaTypeVerdict, describe(mediaTypeEmpty, emptyJSON), []oci.Descriptor{describe(MediaTypeVerdict, statement)}, subject,
		map[string]string{"vnd.dray.verdict": r.Outcome(), "vnd.dray.checks": r.Checks, "vnd.dray.revision": r.Revision},
	})
	if err != nil {
		return nil, err
	}
	return oci.ParseManifest(oci.MediaTypeOCIManifest, raw)
}

// sendSmall brings bytes to the repository of an image, unless it is known to have them.
func (m *Mirror) sendSmall(ctx context.Context, a attachment, p []byte) error {
	d := digest.FromBytes(p)
	if _, err := m.known.Get(ctx, a.up.Name, a.repo, d); err == nil {
		return nil
	}
	err := a.up.Sink.PutBlob(ctx, a.remote(), upstream.Upload{
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p)), nil },
		Size: int64(len(p)), Announced: d, Digest: func() (digest.Digest, error) { return d, nil },
	})
	if err == nil {
		m.recorded(m.known.Add(ctx, a.up.Name, a.repo, meta.Holding{Digest: d, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: int64(len(p))}}))
	}
	return err
}

// listByTag puts a manifest into the index that stands in for the list of referrers, at a registry that keeps none by itself (spec, "Pushing
// Manifests with Subject"). A registry that does not say whether it does is asked.
func (m *Mirror) listByTag(ctx context.Context, a attachment, man *oci.Manifest) error {
	_, err := a.up.Lister.Referrers(ctx, a.remote(), a.subject.Digest, nil)
	if err == nil || !errors.Is(err, upstream.ErrReferrersUnsupported) {
		return err
	}
	ref := oci.Reference{Tag: upstream.FallbackTag(a.subject.Digest)}
	raw := []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[]}`)
	switch now, err := a.up.Once.Manifest(ctx, a.remote(), ref, []string{oci.MediaTypeOCIIndex}); {
	case err == nil:
		raw = now.Raw
	case !oci.NotFound(err):
		return err
	}
	raw, err = withReferrer(raw, man)
	if err != nil || raw == nil {
		return err
	}
	index, err := oci.ParseManifest(oci.MediaTypeOCIIndex, raw)
	if err != nil {
		return err
	}
	if _, err := a.up.Sink.PutManifest(ctx, a.remote(), ref, index); err != nil {
		return err
	}
	m.landed(ctx, a.up, a.repo, ref, index, ownChildren(index))
	return nil
}

// withReferrer adds a manifest to an index of referrers; it returns nil where it is there.
func withReferrer(index []byte, man *oci.Manifest) ([]byte, error) {
	there := false
	raw, err := oci.EditIndex(index, func(all []oci.IndexEntry) []oci.IndexEntry {
		there = slices.ContainsFunc(all, func(e oci.IndexEntry) bool { return e.Digest == man.Digest })
		d := man.Descriptor()
		d.ArtifactType, d.Annotations = man.ArtifactType, man.Annotations
		return append(all, oci.IndexEntry{Descriptor: d})
	})
	if there {
		return nil, nil
	}
	return raw, err
}
