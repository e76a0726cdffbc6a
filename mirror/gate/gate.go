package gate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/flight"
	"dray/mirror/notify"
	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// Gate says what must be true of what is pushed to some repositories of an upstream.
type Gate struct {
	Pipeline *pipeline.Pipeline
	// Repositories are patterns as in a Rule.
	Repositories []string
	// HoldUploads sends no byte of a layer before the verdict. Otherwise layers flow on
	// while they come, and each is completed at the upstream when it has been looked at.
	HoldUploads bool
	// ForwardDigests lets manifests that are pushed by digest land at once. Otherwise they
	// wait, for HoldFor, until a manifest that refers to them passes.
	ForwardDigests bool
	HoldFor        time.Duration
	// TrustUnseen leaves layers alone that the client did not send, because the upstream
	// has them. Otherwise they are fetched and looked at.
	TrustUnseen bool
	// Attach puts the verdict beside an image that has landed, as an artifact that refers to it.
	Attach bool
	// Within bounds the wait for a verdict of clients that give up after 30 s.
	Within time.Duration
	// OnTimeout is what becomes of a push whose verdict takes longer.
	OnTimeout pipeline.OnError
}

// Options are what Checks are made of.
type Options struct {
	// Gates are what pushes have to pass, by the name of their upstream. The first one with a
	// pattern for a repository counts; without one, a push is forwarded as it is.
	Gates  map[string][]*Gate
	Tasks  *flight.Tasks
	Logger *slog.Logger
	// OnEvent, when not nil, is called with what was pushed, judged and deleted. It must not wait.
	OnEvent func(notify.Event)
	// Bound bounds the work on one verdict, and on one layer that no client sends.
	Bound time.Duration
}

// Checks has pushes judged by the gates of their repositories.
type Checks struct {
	Events
	o        Options
	verdicts *flight.Group[Key, *pipeline.Report]
	scans    *flight.Group[layerKey, *pipeline.Scanned]
	walks    chan struct{}
	reports  *reports
}

// New returns Checks that have judged nothing.
func New(o Options) *Checks {
	return &Checks{
		Events: Events{o.OnEvent}, o: o,
		verdicts: flight.NewGroup[Key, *pipeline.Report](flight.Options{Tasks: o.Tasks, Timeout: o.Bound, Detached: true}),
		scans:    flight.NewGroup[layerKey, *pipeline.Scanned](flight.Options{Tasks: o.Tasks, Timeout: o.Bound}),
		walks:    make(chan struct{}, maxWalks), reports: newReports(),
	}
}

// For finds what a push to a repository has to pass: the first gate with a pattern for it, or nil.
func (c *Checks) For(r repository.Repo) *Gate {
	for _, g := range c.o.Gates[r.Up.Name] {
		if pattern.Any(g.Repositories, r.Name) {
			return g
		}
	}
	return nil
}

// errStillChecking ends the wait for a verdict, not the work.
var errStillChecking = errors.New("still checking")

// Rejected is the error of a push that did not pass.
type Rejected struct{ Report *pipeline.Report }

func (e *Rejected) Error() string { return e.Report.Message("") }

// Push is a manifest that asks to pass a gate.
type Push struct {
	Repo repository.Repo
	Gate *Gate // nil: there is none
	// User is the client's name, "" for an anonymous one.
	User     string
	Ref      oci.Reference
	Manifest *oci.Manifest
	// Within bounds the client's wait for the verdict.
	Within time.Duration
	Cause  notify.Cause
}

// Key is equal for pushes that are the same. A verdict may depend on who pushes, so the user is
// part of it where there is a gate.
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

// name is what stages learn of a push.
func (p Push) name() pipeline.Name {
	n := pipeline.Name{Upstream: p.Repo.Up.Name, Repository: p.Repo.Name, Tag: p.Ref.Tag, User: p.User}
	if p.Manifest != nil {
		n.Digest = p.Manifest.Digest
		n.Current = func(ctx context.Context) (digest.Digest, error) { return p.Repo.Current(ctx, p.Ref) }
	}
	return n
}

// CheckName judges a push by its name alone. It returns a *Rejected where the name does not pass.
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

// Pass returns no error when the manifest may be forwarded, with the report that says so if it came
// in time; a *Rejected error says that it may not. The verdict is worked on independently of the
// client: a second push of the same waits for the same work.
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
	// What describes another manifest does not wait for one that refers to it: nobody will look at
	// it again.
	part := p.Ref.Tag == "" && !p.Gate.ForwardDigests && p.Manifest.Subject == nil
	r, err := p.Gate.Pipeline.Judge(ctx, pipeline.Subject{Name: p.name(), Manifest: p.Manifest, Part: part}, contents)
	if err != nil {
		return nil, err
	}
	c.conclude(ctx, r, p.Cause)
	c.reports.answered(p.Key(), r)
	return r, nil
}

// unfinished is the configured answer when a verdict takes longer than the client waits.
func (c *Checks) unfinished(ctx context.Context, p Push) error {
	c.o.Logger.LogAttrs(ctx, slog.LevelWarn, "verdict not in time", slog.String("checks", p.Gate.Pipeline.Name()), slog.String("upstream", p.Repo.Up.Name),
		slog.String("repository", p.Repo.Name), slog.String("reference", p.Ref.String()), slog.String("answer", string(cmp.Or(p.Gate.OnTimeout, pipeline.Reject))))
	if p.Gate.OnTimeout == pipeline.Allow {
		return nil
	}
	return oci.ErrDenied.With("the checks of %s were not finished within %v, so it was not stored; they go on: push again in a while, no layer will be sent twice", p.Repo.Name, p.Within)
}

// conclude keeps a report, writes the line of the audit, and sends the event.
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
