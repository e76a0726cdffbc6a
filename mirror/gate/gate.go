package gate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/flight"
	"dray/mirror/notify"
	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// Gate is the set of conditions for pushes to some repositories of an upstream.
type Gate struct {
	Pipeline *pipeline.Pipeline
	// Repositories are patterns for names of repositories (package pattern).
	Repositories []string
	// HoldUploads says that no byte of a layer is forwarded before the verdict. Otherwise each layer
	// is forwarded while the client sends it, and completed at the upstream after its scan. But even
	// then, dray holds back a layer whose scan could not start.
	HoldUploads bool
	// ForwardDigests says that a manifest which is pushed by digest is forwarded as soon as it passes.
	// Otherwise such a manifest waits, for HoldFor at most, until an index or a tag that refers to it
	// also passes. A referrer waits for its subject instead.
	ForwardDigests bool
	HoldFor        time.Duration
	// TrustUnseen says that layers which the client did not send, because the upstream has them, are
	// not scanned. Otherwise dray fetches and scans them.
	TrustUnseen bool
	// Attach says that the verdict on a forwarded image is pushed as an artifact that refers to the
	// image.
	Attach bool
	// Within is the longest time that a client waits for a verdict, if dray must answer this client
	// within 25 s, as it must answer containerd. It does not apply to other clients. 0 means 20 s.
	Within time.Duration
	// OnTimeout is the answer to a push whose verdict takes longer than its client waits.
	OnTimeout pipeline.OnError
}

// Options are the parts of a Checks.
type Options struct {
	// Gates are the gates of each upstream, by its name. The first gate with a pattern that matches
	// the repository applies. If none matches, a push is forwarded unchecked.
	Gates  map[string][]*Gate
	Tasks  *flight.Tasks
	Logger *slog.Logger
	// OnEvent, if not nil, is called for each push, verdict and deletion. It must not block.
	OnEvent func(notify.Event)
	// Bound is the longest time for one verdict, and for the scan of a layer that is not being
	// uploaded.
	Bound time.Duration
}

// Checks checks each push by the gate of its repository.
type Checks struct {
	Events
	o        Options
	gates    atomic.Pointer[map[string][]*Gate]
	verdicts *flight.Group[Key, *pipeline.Report]
	scans    *flight.Group[layerKey, *pipeline.Scanned]
	walks    chan struct{}
	reports  *reports
}

// New returns a Checks without reports.
func New(o Options) *Checks {
	c := &Checks{
		Events: Events{o.OnEvent}, o: o,
		verdicts: flight.NewGroup[Key, *pipeline.Report](flight.Options{Tasks: o.Tasks, Timeout: o.Bound, Detached: true}),
		scans:    flight.NewGroup[layerKey, *pipeline.Scanned](flight.Options{Tasks: o.Tasks, Timeout: o.Bound}),
		walks:    make(chan struct{}, maxWalks), reports: newReports(),
	}
	c.gates.Store(&o.Gates)
	return c
}

// Replace replaces the gates of the upstreams in the parameter gates. A push that is being checked
// keeps its former gate. The gates of other upstreams stay, because a push to a removed upstream
// can still be under way.
func (c *Checks) Replace(gates map[string][]*Gate) {
	next := map[string][]*Gate{}
	maps.Copy(next, *c.gates.Load())
	maps.Copy(next, gates)
	c.gates.Store(&next)
}

// For returns the gate for pushes to a repository, or nil if no gate has a pattern that matches it.
func (c *Checks) For(r repository.Repo) *Gate {
	for _, g := range (*c.gates.Load())[r.Up.Name] {
		if pattern.Any(g.Repositories, r.Name) {
			return g
		}
	}
	return nil
}

// errStillChecking ends the wait for a verdict. The checks go on.
var errStillChecking = errors.New("checks still running")

// Rejected is the error of a push that did not pass.
type Rejected struct{ Report *pipeline.Report }

func (e *Rejected) Error() string { return e.Report.Message("") }

// Push is a manifest on its way through a gate.
type Push struct {
	Repo repository.Repo
	Gate *Gate // nil if the push is not checked
	// User is the name of the authenticated client, or "" if the client is anonymous.
	User     string
	Ref      oci.Reference
	Manifest *oci.Manifest
	// Within is the longest time that the client waits for the verdict.
	Within time.Duration
	Cause  notify.Cause
}

// Key identifies a push and its verdict. Pushes with the same Key at the same time share the work
// and the verdict. A verdict may depend on the user, so the user is part of the key if there is a
// gate.
type Key struct {
	Repo   repository.Repo
	Ref    string
	Digest digest.Digest
	User   string
}

// Key returns the key of a push.
func (p Push) Key() Key {
	k := Key{Repo: p.Repo, Ref: p.Ref.String(), Digest: p.Manifest.Digest}
	if p.Gate != nil {
		k.User = p.User
	}
	return k
}

// name describes the push to the stages.
func (p Push) name() pipeline.Name {
	n := pipeline.Name{Upstream: p.Repo.Up.Name, Repository: p.Repo.Name, Tag: p.Ref.Tag, User: p.User}
	if p.Manifest != nil {
		n.Digest = p.Manifest.Digest
		n.Current = func(ctx context.Context) (digest.Digest, error) { return p.Repo.Current(ctx, p.Ref) }
	}
	return n
}

// CheckName checks a push by its name alone. It returns a *Rejected if the name does not pass.
func (c *Checks) CheckName(ctx context.Context, p Push) error {
	if p.Gate == nil {
		return nil
	}
	r := p.Gate.Pipeline.CheckName(ctx, p.name())
	if r == nil || r.Pass {
		return nil
	}
	c.conclude(ctx, r, p.Cause)
	return &Rejected{r}
}

// Pass waits for the verdict on a manifest. It returns the report if the manifest may be forwarded.
// After p.Within, the verdict is late. If the gate's OnTimeout is Allow, the manifest may then be
// forwarded without a verdict, and the report is nil. Any error means that the manifest may not be
// forwarded now. The error is a *Rejected if the manifest did not pass, and [oci.ErrDenied] if the
// verdict is late. The checks continue after the client has disconnected, so a second push of the
// same manifest waits for the same verdict.
func (c *Checks) Pass(ctx context.Context, p Push, contents pipeline.Contents) (*pipeline.Report, error) {
	wait, cancel := context.WithTimeoutCause(ctx, p.Within, errStillChecking)
	defer cancel()
	r := c.reports.late(p.Key(), p.Within)
	if r == nil {
		var err error
		r, err = c.verdicts.Do(wait, p.Key(), func(ctx context.Context) (*pipeline.Report, error) {
			return c.judge(ctx, p, contents)
		})
		if errors.Is(err, errStillChecking) {
			return nil, c.unfinished(ctx, p)
		}
		if err != nil {
			return nil, err
		}
	}
	if !r.Pass {
		return nil, &Rejected{r}
	}
	return r, nil
}

func (c *Checks) judge(ctx context.Context, p Push, contents pipeline.Contents) (*pipeline.Report, error) {
	// A manifest that waits for an index or a tag is judged as a part, and once more when that index
	// or tag arrives. A referrer waits for neither, so it is never judged as a part.
	part := p.Ref.Tag == "" && !p.Gate.ForwardDigests && p.Manifest.Subject == nil
	r, err := p.Gate.Pipeline.Judge(ctx, pipeline.Subject{Name: p.name(), Manifest: p.Manifest, Part: part}, contents)
	if err != nil {
		return nil, err
	}
	c.conclude(ctx, r, p.Cause)
	c.reports.set(p.Key(), r)
	return r, nil
}

// unfinished returns the configured answer to a push whose verdict is late. nil means that the push
// may be forwarded without a verdict.
func (c *Checks) unfinished(ctx context.Context, p Push) error {
	c.o.Logger.LogAttrs(ctx, slog.LevelWarn, "verdict is late", slog.String("checks", p.Gate.Pipeline.Name()), slog.String("upstream", p.Repo.Up.Name),
		slog.String("repository", p.Repo.Name), slog.String("reference", p.Ref.String()), slog.String("answer", string(cmp.Or(p.Gate.OnTimeout, pipeline.Reject))))
	if p.Gate.OnTimeout == pipeline.Allow {
		return nil
	}
	return oci.ErrDenied.With("the checks of %s did not finish within %v and continue, so the image is not stored yet; push again later, and no layer is sent twice", p.Repo.Name, p.Within)
}

// conclude stores a report, writes the audit line to the log, and sends the event.
func (c *Checks) conclude(ctx context.Context, r *pipeline.Report, by notify.Cause) {
	c.reports.add(r)
	c.emitVerdict(r, by)
	attrs := []slog.Attr{
		slog.String("checks", r.Checks), slog.String("verdict", r.Outcome()), slog.String("upstream", r.Upstream), slog.String("repository", r.Repository),
		slog.Int("findings", len(r.Findings)), slog.Int("unknowns", len(r.Unknowns)), slog.String("report", r.ID),
	}
	for _, o := range [][2]string{{"tag", r.Tag}, {"digest", r.Digest.String()}, {"user", r.User}, {"client", by.Request.Addr}} {
		if o[1] != "" {
			attrs = append(attrs, slog.String(o[0], o[1]))
		}
	}
	if rules := r.Broken(); len(rules) > 0 {
		attrs = append(attrs, slog.String("rules", strings.Join(rules, " ")))
	}
	if found := r.ByRule(); len(found) > 0 {
		attrs = append(attrs, slog.String("found", strings.Join(found, " ")))
	}
	c.o.Logger.LogAttrs(ctx, slog.LevelInfo, "verdict", attrs...)
}
