package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/mirror/flight"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// MediaTypeVerdict is the artifact type of a verdict that is attached to an image. It is also the
// media type of the only layer of that artifact: the JSON of [pipeline.Report.Statement].
const MediaTypeVerdict = "application/vnd.dray.verdict.v1+json"

// mediaTypeEmpty is the type of an empty configuration (image-spec, manifest.md, "Guidance for an
// Empty Descriptor").
const mediaTypeEmpty = "application/vnd.oci.empty.v1+json"

var emptyJSON = []byte("{}")

const (
	// maxAttachments bounds the verdicts that wait for their first try, and also those that wait for a
	// further try.
	maxAttachments = 1024
	// attachWithin bounds the time of one try to attach a verdict.
	attachWithin = 2 * time.Minute
)

// attachPauses are the pauses before further tries. Their sum is longer than most outages of a
// registry, and longer than a push usually waits in the queue.
var attachPauses = []time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

// attachment is a verdict that is to be attached to its image.
type attachment struct {
	repo    repository.Repo
	ref     oci.Reference
	subject oci.Descriptor
	report  *pipeline.Report
}

// remote returns the image's repository at its upstream, for requests in the background.
func (a attachment) remote() upstream.Repo { return a.repo.Remote().With(upstream.InBackground()) }

// Verdicts attaches verdicts to their images, as artifacts that refer to the images.
type Verdicts struct {
	queue   *flight.Jobs[attachment]
	log     *slog.Logger
	results *prometheus.CounterVec
}

// NewVerdicts returns Verdicts with an empty queue.
func NewVerdicts(log *slog.Logger) *Verdicts {
	return &Verdicts{
		queue: flight.NewJobs[attachment](maxAttachments), log: log,
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dray_verdicts_attached_total",
			Help: "Verdicts to attach to forwarded images, by upstream and result: attached, existed (an equal verdict was already attached), failed, or dropped (too many waited)."}, []string{"upstream", "result"}),
	}
}

// Collectors returns the metrics of the verdicts.
func (v *Verdicts) Collectors() []prometheus.Collector { return []prometheus.Collector{v.results} }

// Run attaches verdicts until ctx ends.
func (v *Verdicts) Run(ctx context.Context) { v.queue.Run(ctx, v.attachOne) }

// Attach queues a verdict to be attached to the image that ref refers to. The image may still be on
// its way to the upstream. Attach never blocks. If a manifest has a subject or a derived tag, as
// signatures have, it gets no verdict of its own.
func (v *Verdicts) Attach(repo repository.Repo, ref oci.Reference, man *oci.Manifest, r *pipeline.Report) {
	if r == nil || man.Subject != nil || oci.DerivedTag(ref.Tag) {
		return
	}
	subject := oci.Descriptor{MediaType: man.MediaType, Digest: man.Digest, Size: int64(len(man.Raw))}
	if !v.queue.Add(attachment{repo: repo, ref: ref, subject: subject, report: r}) {
		v.results.WithLabelValues(repo.Up.Name, "dropped").Inc()
	}
}

// Drop is called before an image is deleted. It removes the queued verdicts of the image that ref
// refers to, and returns a function to queue them again. If such a verdict is being attached, Drop
// cancels the attempt and waits until the attempt or ctx has ended.
func (v *Verdicts) Drop(ctx context.Context, repo repository.Repo, ref oci.Reference) (restore func()) {
	dropped := v.queue.Drop(ctx, func(a attachment) bool {
		return repository.Same(a.repo, repo) && (a.subject.Digest == ref.Digest || a.ref == ref)
	})
	return func() {
		for _, a := range dropped {
			v.queue.Add(a)
		}
	}
}

// attachOne attaches one verdict. If that fails, it retries later, unless the upstream refuses.
func (v *Verdicts) attachOne(ctx context.Context, c flight.Job[attachment]) {
	a := c.Value
	a.repo = a.repo.Key("").Now() // its upstream may have been replaced
	if a.repo.Queued(a.ref, oci.AnyManifest()) != nil {
		v.attachAgain(c, errStillQueued)
		return
	}
	bounded, cancel := context.WithTimeout(ctx, attachWithin)
	defer cancel()
	result, err := v.putVerdict(bounded, a)
	if err != nil && ctx.Err() == nil {
		if !upstream.Refused(err) {
			v.attachAgain(c, err)
			return
		}
		v.notAttached(a, err)
		return
	}
	if err == nil {
		v.results.WithLabelValues(a.repo.Up.Name, result).Inc()
	}
}

var errStillQueued = errors.New("the image is not forwarded yet")

func (v *Verdicts) attachAgain(c flight.Job[attachment], err error) {
	if !v.queue.Retry(c, attachPauses) {
		v.notAttached(c.Value, err)
	}
}

func (v *Verdicts) notAttached(a attachment, err error) {
	v.results.WithLabelValues(a.repo.Up.Name, "failed").Inc()
	v.log.Warn("verdict not attached", "upstream", a.repo.Up.Name, "repository", a.repo.Name, "digest", a.subject.Digest, "error", err)
}

// putVerdict sends the artifact to the upstream, unless the upstream has it. It returns the result
// for the metric. The same verdict always makes the same artifact, so the digest of the artifact
// shows whether the upstream has it.
func (v *Verdicts) putVerdict(ctx context.Context, a attachment) (result string, err error) {
	statement, err := a.report.Statement()
	if err != nil {
		return "", err
	}
	man, err := artifact(a.subject, statement, a.report)
	if err != nil {
		return "", err
	}
	if there, err := attachedBefore(ctx, a, man); there || err != nil {
		return "existed", err
	}
	pushed, err := sendArtifact(ctx, a, man, statement)
	if errors.Is(err, upstream.ErrPartsMissing) {
		a.repo.ForgetChildren(ctx, man)
		pushed, err = sendArtifact(ctx, a, man, statement)
	}
	if err == nil && pushed.Subject == "" {
		err = listByTag(ctx, a, man)
	}
	if err != nil {
		return "", err
	}
	// Record the artifact last. So a try that fails before it writes the fallback tag leaves no
	// record, and the next try does not take the artifact for complete.
	a.repo.StorePushed(ctx, meta.Question{}, oci.Reference{Digest: man.Digest}, man, repository.Children(man))
	return "attached", nil
}

// sendArtifact sends the blobs of a verdict and then its manifest.
func sendArtifact(ctx context.Context, a attachment, man *oci.Manifest, statement []byte) (upstream.Pushed, error) {
	for _, blob := range [][]byte{emptyJSON, statement} {
		if err := sendSmall(ctx, a.repo, blob); err != nil {
			return upstream.Pushed{}, err
		}
	}
	return a.repo.Up.Sink.PutManifest(ctx, a.remote(), oci.Reference{Digest: man.Digest}, man)
}

// attachedBefore reports whether the upstream has the artifact. If no presence is recorded, it
// returns false without asking. Otherwise it asks the upstream: if the image was deleted there and
// then pushed again, the deletion may have taken the artifact with it.
func attachedBefore(ctx context.Context, a attachment, man *oci.Manifest) (bool, error) {
	if !a.repo.PresentAtTarget(ctx, man.Digest) {
		return false, nil
	}
	_, err := a.repo.Up.Source.StatManifest(ctx, a.remote(), oci.Reference{Digest: man.Digest}, oci.AnyManifest())
	if !oci.NotFound(err) {
		return err == nil, err
	}
	a.repo.ForgetAtTarget(ctx, man.Digest)
	a.repo.ForgetChildren(ctx, man)
	return false, nil
}

// artifact makes the manifest of a verdict (image-spec, manifest.md, "Guidelines for Artifact
// Usage").
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

// sendSmall sends bytes to a repository, unless a fact says that the upstream has them.
func sendSmall(ctx context.Context, r repository.Repo, p []byte) error {
	d, size := digest.FromBytes(p), int64(len(p))
	if r.PresentAtTarget(ctx, d) {
		return nil
	}
	return r.Send(ctx, upstream.InBackground(), upstream.Upload{
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p)), nil },
		Size: size, Announced: d, Digest: func() (digest.Digest, error) { return d, nil },
	}, func() (digest.Digest, int64) { return d, size })
}

// listByTag adds a manifest to the index under the fallback tag. Clients read this index if the
// registry has no referrers API (spec, "Pushing Manifests with Subject"). If the registry says that
// it has the API, listByTag does nothing.
func listByTag(ctx context.Context, a attachment, man *oci.Manifest) error {
	_, err := a.repo.Up.Lister.Referrers(ctx, a.remote(), a.subject.Digest, nil)
	if err == nil || !errors.Is(err, upstream.ErrReferrersUnsupported) {
		return err
	}
	ref := oci.Reference{Tag: oci.FallbackTag(a.subject.Digest)}
	raw := []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[]}`)
	switch now, err := a.repo.Up.OneTry().Manifest(ctx, a.remote(), ref, []string{oci.MediaTypeOCIIndex}); {
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
	before := repository.BeforePush(ctx, a.repo, ref)
	if _, err := a.repo.Up.Sink.PutManifest(ctx, a.remote(), ref, index); err != nil {
		return err
	}
	a.repo.StorePushed(ctx, before, ref, index, repository.Children(index))
	return nil
}

// withReferrer adds a manifest to an index of referrers. It returns nil if the manifest is already
// in the index.
func withReferrer(index []byte, man *oci.Manifest) ([]byte, error) {
	there := false
	raw, err := oci.EditIndex(index, func(all []oci.IndexEntry) []oci.IndexEntry {
		there = slices.ContainsFunc(all, func(e oci.IndexEntry) bool { return e.Digest == man.Digest })
		return append(all, oci.IndexEntry{Descriptor: man.Referrer()})
	})
	if there {
		return nil, nil
	}
	return raw, err
}
