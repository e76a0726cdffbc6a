package mirror

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"dray/cache/meta"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// landWithin bounds the way of one image to its upstream, which goes on when the
// client has been answered.
const landWithin = time.Hour

// containerdWaits is how long a client with containerd's transport is kept waiting
// for the answer to a push: it gives up 30 s after its last byte.
const containerdWaits = 25 * time.Second

// errStillCopying ends the wait of a client, not the work.
var errStillCopying = errors.New("still copying")

func (m *Mirror) putManifest(x *exchange) error {
	man, err := x.readManifest()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(x.r.Context(), m.patience(x.r), errStillCopying)
	defer cancel()
	pushed, err := m.bring(ctx, x, x.q.Ref, man)
	for _, tag := range x.q.Tags {
		if err == nil {
			_, err = m.bring(ctx, x, oci.Reference{Tag: tag}, man)
		}
	}
	if errors.Is(err, errStillCopying) {
		// A 4xx: its text reaches the terminal, and no client repeats it by itself.
		return oci.ErrDenied.With("the image is complete on the mirror and still being copied to %s (%d %%): push again in a while to finish, no layer will be sent twice",
			x.up.Registry, m.percentCopied(x.r.Context(), x.up, x.target.Repo, man))
	}
	if r, ok := errors.AsType[*rejected](err); ok {
		return x.denied(r.report)
	}
	if errors.Is(err, upstream.ErrCredentials) {
		// Clients hide the text of a 5xx from whoever pushes, and try it again.
		return oci.ErrDenied.With("the mirror has no valid credentials for %s", x.up.Registry).Because(err)
	}
	if err != nil {
		return err
	}
	if pushed.Subject != "" {
		x.w.Header().Set("OCI-Subject", pushed.Subject.String())
	}
	for _, tag := range x.q.Tags {
		x.w.Header().Add("OCI-Tag", tag)
	}
	return x.createdAt(oci.Request{Kind: oci.KindManifest, Ref: oci.Reference{Digest: man.Digest}}, man.Digest)
}

// bring lands a manifest under one reference, once for all who push the same.
func (m *Mirror) bring(ctx context.Context, x *exchange, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	asks := plea{up: x.up, gate: x.up.gate(x.target.Repo), repo: x.target.Repo, user: x.caller.Name, owner: x.owner(), ref: ref, man: man, cause: x.cause()}
	if asks.gate != nil {
		asks.within = m.verdictWithin(asks.gate, x.r)
	}
	pushed, err := m.landings.Do(ctx, asks.key(), func(ctx context.Context) (upstream.Pushed, error) {
		p, err := m.admit(ctx, asks)
		result := outcome(err)
		if err == nil && p.Digest == "" && x.up.AcknowledgeLocally && !x.up.keepsAside(man) {
			result = "queued"
		}
		m.metrics.pushes.WithLabelValues(x.up.Name, result).Inc()
		return p, err
	})
	if err == nil && asks.gate != nil {
		x.warnings(m.reports.of(asks.key()))
	}
	return pushed, err
}

// admit lands a manifest that passes the gate of its repository, where there is one, or lets it wait.
func (m *Mirror) admit(ctx context.Context, p plea) (upstream.Pushed, error) {
	m.pins.renew(pinKeys(p.up, p.repo, p.man.Children())...)
	var verdict *pipeline.Report
	if p.gate != nil {
		var err error
		if verdict, err = m.pass(ctx, p); err != nil {
			return upstream.Pushed{}, err
		}
	}
	if p.up.keepsAside(p.man) {
		return m.landAside(ctx, p.up, p.repo, p.ref, p.man)
	}
	switch waits, err := m.waits(ctx, p.gate, p.up, p.repo, p.ref, p.man); {
	case err != nil:
		return upstream.Pushed{}, err
	case waits:
		return m.holdBack(p), nil
	}
	pushed, err := m.inTurn(ctx, p)
	if err == nil {
		m.attach(p, verdict)
		m.tell(notify.Push, p.up, p.user, p.cause, notify.Target{MediaType: p.man.MediaType, Digest: p.man.Digest, Size: int64(len(p.man.Raw)), Repository: p.repo, Tag: p.ref.Tag})
	}
	return pushed, err
}

// tagKey names a tag at an upstream.
type tagKey struct{ upstream, repo, tag string }

// inTurn lands an image, or puts it on record. Where there are checks, the pushes of one tag take turns, and what is said of the name is
// asked again then: since the verdict the tag may have been given to another image.
func (m *Mirror) inTurn(ctx context.Context, p plea) (upstream.Pushed, error) {
	if p.gate != nil && p.ref.Tag != "" {
		done, err := m.tagLocks.Lock(ctx, tagKey{p.up.Name, p.repo, p.ref.Tag})
		if err != nil {
			return upstream.Pushed{}, err
		}
		defer done()
		if r := p.gate.Pipeline.CheckName(ctx, p.name(m)); r != nil && !r.Pass {
			m.conclude(ctx, r, p.cause)
			return upstream.Pushed{}, &rejected{r}
		}
	}
	if p.up.AcknowledgeLocally {
		return m.acknowledgeOrLand(ctx, p)
	}
	return m.land(ctx, upstream.Call{}, p.up, p.repo, p.ref, p.man)
}

// pinKeys names what a push may have pinned for the children of a manifest.
func pinKeys(up *Upstream, repo string, children []oci.Child) []pinKey {
	var keys []pinKey
	for _, c := range children {
		keys = append(keys, pinKey{up.Name, repo, c.Digest})
	}
	return keys
}

func outcome(err error) string {
	if _, ok := errors.AsType[*rejected](err); ok {
		return "rejected"
	}
	switch {
	case err == nil:
		return "landed"
	case isRefusal(err):
		return "refused"
	}
	return "failed"
}

// patience is how long the client is kept waiting.
func (m *Mirror) patience(r *http.Request) time.Duration {
	if strings.Contains(strings.ToLower(r.UserAgent()), "containerd") {
		return min(containerdWaits, m.within)
	}
	return m.within
}

// readManifest reads the body and holds it to the reference in the URL.
func (x *exchange) readManifest() (*oci.Manifest, error) {
	raw, err := io.ReadAll(io.LimitReader(x.w.Body(), oci.MaxManifestBytes+1))
	if err != nil {
		return nil, oci.ErrManifestInvalid.With("the manifest broke off after %d bytes", len(raw)).Because(err)
	}
	if len(raw) > oci.MaxManifestBytes {
		e := oci.ErrSizeInvalid.With("the manifest is over the limit of %d bytes", oci.MaxManifestBytes)
		e.Status = http.StatusRequestEntityTooLarge
		return nil, e
	}
	man, err := oci.ParseManifest(x.r.Header.Get("Content-Type"), raw)
	if err != nil {
		return nil, err
	}
	if man.Schema1() {
		return nil, oci.ErrManifestInvalid.With("manifests of schema version 1 are no longer accepted, use a current client")
	}
	if want := x.q.Ref.Digest; want != "" {
		if got := want.Algorithm().FromBytes(raw); got != want {
			return nil, oci.ErrDigestInvalid.With("the manifest has the digest %s, not %s", got, want)
		}
		man.Digest = want
	}
	return man, nil
}

// land brings a manifest to the upstream after everything it needs. A blob that was
// thought to be there and is not is sent from the local copy, once. how says who hears of failures that are repeated.
func (m *Mirror) land(ctx context.Context, how upstream.Call, up *Upstream, repo string, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	there, err := m.settle(ctx, how, up, repo, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := up.Sink.PutManifest(ctx, up.remote(repo).With(how), ref, man)
	if errors.Is(err, upstream.ErrPartsMissing) {
		m.forgetChildren(ctx, up, repo, man)
		m.sendPinned(ctx, how, up, repo, man)
		there, err = m.settle(ctx, how, up, repo, man)
		if err := errors.Join(err, m.landAgain(ctx, how, up, repo, man)); err != nil {
			return upstream.Pushed{}, err
		}
		pushed, err = up.Sink.PutManifest(ctx, up.remote(repo).With(how), ref, man)
	}
	if err != nil {
		return upstream.Pushed{}, err
	}
	m.landed(ctx, up, repo, ref, man, there)
	m.replaceAside(ctx, up, repo, ref, man)
	return pushed, m.landAbout(ctx, how, up, repo, man.Digest)
}

// landAgain sends the manifests of an index that are held here: the upstream has lost
// one of those that the client was told are there.
func (m *Mirror) landAgain(ctx context.Context, how upstream.Call, up *Upstream, repo string, index *oci.Manifest) error {
	for _, c := range index.Children() {
		if !c.Manifest {
			continue
		}
		man, err := m.heldManifest(ctx, up, repo, c.Digest)
		if err != nil {
			return err
		}
		if man == nil {
			continue // never here: the upstream's refusal stands
		}
		if _, err := m.land(ctx, how, up, repo, oci.Reference{Digest: c.Digest}, man); err != nil {
			return err
		}
	}
	return nil
}

// landed records what the upstream now has: a manifest, and the children that it was waited for. The tag is forgotten first, so that no
// answer that was on its way meanwhile can bring the old one back.
func (m *Mirror) landed(ctx context.Context, up *Upstream, repo string, ref oci.Reference, man *oci.Manifest, children []oci.Child) {
	m.keep(ctx, up, repo, man, children)
	m.supplied(ctx, up, childLinks(children)...)
	m.recorded(m.absences.Forget(ctx, up.Name, repo, man.Digest))
	if ref.Tag != "" {
		m.recorded(m.tags.Forget(ctx, up.Name, repo, ref.Tag))
		key := meta.TagKey{Upstream: up.Name, Repo: repo, Tag: ref.Tag, Accept: pushedKey}
		m.recorded(m.tags.Set(ctx, key, meta.TagFact{Digest: man.Digest, MediaType: man.MediaType, Size: int64(len(man.Raw))}, 0))
		m.learner.saw(up, repo, ref, man.MediaType, man.Digest)
	}
	m.pins.drop(pinKeys(up, repo, children)...)
}

// ownChildren are what the registry of a manifest has to hold for it, each once.
func ownChildren(man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(oci.Child) bool { return false })
}

// neededChildren are what a push waits for: ownChildren, and the foreign layers that the repository
// has, because its client sent them as well.
func (m *Mirror) neededChildren(ctx context.Context, up *Upstream, repo string, man *oci.Manifest) []oci.Child {
	return childrenWith(man, func(c oci.Child) bool {
		if m.pins.get(pinKey{up.Name, repo, c.Digest}) != nil {
			return true
		}
		if _, queued := m.queue.Blob(up.Name, repo, c.Digest); queued {
			return true
		}
		if _, err := m.known.Get(ctx, up.Name, repo, c.Digest); err == nil {
			return true
		}
		_, visible, _ := m.visible(ctx, up, repo, c.Digest)
		return visible
	})
}

// childrenWith are the children of a manifest, each once, and of the foreign ones those that with
// picks.
func childrenWith(man *oci.Manifest, with func(oci.Child) bool) []oci.Child {
	var all []oci.Child
	seen := map[digest.Digest]bool{}
	for _, c := range man.Children() {
		if !seen[c.Digest] && (!c.Foreign() || with(c)) {
			seen[c.Digest] = true
			all = append(all, c)
		}
	}
	return all
}

// settle returns when the upstream has every blob of the manifest, with the children that it was
// waited for.
func (m *Mirror) settle(ctx context.Context, how upstream.Call, up *Upstream, repo string, man *oci.Manifest) ([]oci.Child, error) {
	children := m.neededChildren(ctx, up, repo, man)
	lost := make([]bool, len(children))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, c := range children {
		if c.Manifest { // one that does not wait was pushed before its index: the upstream judges
			g.Go(func() error { return m.landWaiting(ctx, how, up, repo, c.Digest) })
			continue
		}
		g.Go(func() error {
			err := m.settleBlob(ctx, how, up, repo, c)
			if lost[i] = c.Foreign() && errors.Is(err, oci.ErrManifestBlobUnknown); lost[i] {
				return nil // it is nowhere any more, and need not be
			}
			return err
		})
	}
	err := g.Wait()
	var there []oci.Child
	for i, c := range children {
		if !lost[i] {
			there = append(there, c)
		}
	}
	return there, err
}

func (m *Mirror) settleBlob(ctx context.Context, how upstream.Call, up *Upstream, repo string, c oci.Child) error {
	if p := m.pins.get(pinKey{up.Name, repo, c.Digest}); p != nil {
		return m.wait(ctx, how, up, repo, c.Digest, p)
	}
	if _, err := m.known.Get(ctx, up.Name, repo, c.Digest); err == nil {
		return nil
	}
	size, err := up.Source.StatBlob(ctx, up.remote(repo).With(how), c.Digest)
	if err == nil {
		m.recorded(m.known.Add(ctx, up.Name, repo, meta.Holding{Digest: c.Digest, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: size}}))
		return nil
	}
	if !oci.NotFound(err) {
		return err
	}
	if size, ok := m.queue.Blob(up.Name, repo, c.Digest); ok {
		return m.supply(ctx, how, up, repo, c.Digest, size)
	}
	if size, kept := m.keptAside(ctx, up, repo, c.Digest); kept {
		return m.supply(ctx, how, up, repo, c.Digest, size)
	}
	// Only what this repository may see may be sent into it from here.
	if _, visible, _ := m.visible(ctx, up, repo, c.Digest); visible {
		if size, ok := m.cache.Stat(c.Digest); ok {
			return m.supply(ctx, how, up, repo, c.Digest, size)
		}
	}
	return oci.NotPushed(oci.KindBlob, c.Digest, repo)
}

// forgetChildren drops the facts about a manifest's children that the upstream has proven wrong.
func (m *Mirror) forgetChildren(ctx context.Context, up *Upstream, repo string, man *oci.Manifest) {
	var ds []digest.Digest
	for _, c := range man.Children() {
		ds = append(ds, c.Digest)
	}
	m.recorded(m.known.Forget(ctx, up.Name, repo, ds...))
}

// sendPinned sends again what is held of the push of a manifest.
func (m *Mirror) sendPinned(ctx context.Context, how upstream.Call, up *Upstream, repo string, man *oci.Manifest) {
	for _, c := range man.Children() {
		if p := m.pins.get(pinKey{up.Name, repo, c.Digest}); p != nil && !c.Manifest {
			if err := m.supply(ctx, how, up, repo, c.Digest, p.size); err != nil {
				m.log.Debug("blob not sent again", "digest", c.Digest, "error", err)
			}
		}
	}
}
