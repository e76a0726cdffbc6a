package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// Gate says what must be true of what is pushed to some repositories of an upstream.
type Gate struct {
	Pipeline *pipeline.Pipeline
	// Repositories are patterns as in an [identity.Rule].
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

// gate finds what a push to a repository has to pass: the first gate with a pattern for it, or nil.
func (u *Upstream) gate(repo string) *Gate {
	for _, g := range u.Gates {
		if pattern.Any(g.Repositories, repo) {
			return g
		}
	}
	return nil
}

// errStillChecking ends the wait for a verdict, not the work.
var errStillChecking = errors.New("still checking")

// rejected is a push that did not pass.
type rejected struct{ report *pipeline.Report }

func (e *rejected) Error() string { return e.report.Message("") }

// plea is a push that asks to pass a gate.
type plea struct {
	up         *Upstream
	gate       *Gate
	repo, user string
	owner      string // who it counts for
	ref        oci.Reference
	man        *oci.Manifest
	// within bounds the client's wait for the verdict.
	within time.Duration
	cause  cause
}

// pleaKey is equal for pushes that share their work.
type pleaKey struct {
	upstream, repo string
	ref            oci.Reference
	digest         digest.Digest
	// user is empty where there are no checks: only a verdict may depend on who pushes.
	user string
}

func (p plea) key() pleaKey {
	k := pleaKey{upstream: p.up.Name, repo: p.repo, ref: p.ref, digest: p.man.Digest}
	if p.gate != nil {
		k.user = p.user
	}
	return k
}

func (p plea) name(m *Mirror) pipeline.Name {
	n := pipeline.Name{Upstream: p.up.Name, Repository: p.repo, Tag: p.ref.Tag, Digest: p.man.Digest, User: p.user}
	n.Current = func(ctx context.Context) (digest.Digest, error) {
		if p.ref.Tag == "" {
			return "", nil
		}
		if queued, ok := m.queue.Find(p.up.Name, p.repo, p.ref.Tag); ok {
			return queued.Digest, nil
		}
		d, err := p.up.Source.StatManifest(ctx, p.up.remote(p.repo), p.ref, anyManifest)
		if oci.NotFound(err) {
			return "", nil
		}
		return d.Digest, err
	}
	return n
}

// checkName refuses by name alone, before any byte.
func (m *Mirror) checkName(x *exchange) error {
	g := x.up.gate(x.target.Repo)
	if g == nil {
		return nil
	}
	r := g.Pipeline.CheckName(x.r.Context(), pipeline.Name{Upstream: x.up.Name, Repository: x.target.Repo, User: x.caller.Name})
	if r == nil || r.Pass {
		return nil
	}
	m.conclude(x.r.Context(), r, x.cause())
	return x.denied(r)
}

// denied puts a rejection into the words that reach the terminal.
func (x *exchange) denied(r *pipeline.Report) error {
	return oci.ErrDenied.With("%s", r.Message(x.reportURL(r.ID)))
}

// pass returns no error when the manifest may land, with the report that says so if it came in time. Its verdict is worked on independently of the client; who asks again
// for the same one waits for the same work.
func (m *Mirror) pass(ctx context.Context, p plea) (*pipeline.Report, error) {
	wait, cancel := context.WithTimeoutCause(ctx, p.within, errStillChecking)
	defer cancel()
	r := m.reports.late(p.key(), p.within)
	if r == nil {
		var err error
		r, err = m.verdicts.Do(wait, p.key(), func(ctx context.Context) (*pipeline.Report, error) {
			return m.judge(ctx, p)
		})
		if errors.Is(err, errStillChecking) {
			return nil, m.unfinished(ctx, p)
		}
		if err != nil {
			return nil, err
		}
	}
	if !r.Pass {
		return nil, &rejected{r}
	}
	return r, nil
}

func (m *Mirror) judge(ctx context.Context, p plea) (*pipeline.Report, error) {
	// What describes another manifest does not wait for one that refers to it: nobody will look at it again.
	part := p.ref.Tag == "" && !p.gate.ForwardDigests && p.man.Subject == nil
	r, err := p.gate.Pipeline.Judge(ctx, pipeline.Subject{Name: p.name(m), Manifest: p.man, Part: part}, &pushed{m, p.up, p.gate, p.repo})
	if err != nil {
		return nil, err
	}
	m.conclude(ctx, r, p.cause)
	m.reports.answered(p.key(), r)
	return r, nil
}

// unfinished is the configured answer when a verdict takes longer than the client waits.
func (m *Mirror) unfinished(ctx context.Context, p plea) error {
	m.log.LogAttrs(ctx, slog.LevelWarn, "verdict not in time", slog.String("checks", p.gate.Pipeline.Name()), slog.String("upstream", p.up.Name),
		slog.String("repository", p.repo), slog.String("reference", p.ref.String()), slog.String("answer", string(cmp.Or(p.gate.OnTimeout, pipeline.Reject))))
	if p.gate.OnTimeout == pipeline.Allow {
		return nil
	}
	return oci.ErrDenied.With("the checks of %s were not finished within %v, so it was not stored; they go on: push again in a while, no layer will be sent twice", p.repo, p.within)
}

// conclude keeps a report, writes the line of the audit, and tells who wants to know.
func (m *Mirror) conclude(ctx context.Context, r *pipeline.Report, by cause) {
	m.reports.keep(r)
	m.tellVerdict(r, by)
	attrs := []slog.Attr{
		slog.String("checks", r.Checks), slog.String("verdict", r.Outcome()), slog.String("upstream", r.Upstream), slog.String("repository", r.Repository),
		slog.Int("findings", len(r.Findings)), slog.Int("unknowns", len(r.Unknowns)), slog.String("report", r.ID),
	}
	for _, o := range [][2]string{{"tag", r.Tag}, {"digest", r.Digest.String()}, {"user", r.User}, {"client", by.request.Addr}} {
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
	m.log.LogAttrs(ctx, slog.LevelInfo, "verdict", attrs...)
}

// verdictWithin is how long a client waits for a verdict. What is left of its patience is for the way to the upstream.
func (m *Mirror) verdictWithin(g *Gate, r *http.Request) time.Duration {
	patience := m.patience(r)
	if patience > containerdWaits {
		return patience - patience/10
	}
	return min(cmp.Or(g.Within, 20*time.Second), patience)
}

// warnings tells a client that sees warnings what a passing push had against it (spec, "Warnings").
func (x *exchange) warnings(r *pipeline.Report) {
	if r == nil {
		return
	}
	size := 0
	for _, f := range r.Findings {
		text := fmt.Sprintf("299 - %q", strings.ReplaceAll(fmt.Sprintf("[%s/%s] %s", f.Stage, f.Rule, f.What), `"`, "'"))
		if size += len(text); f.Waived != "" || size > maxWarnings {
			continue
		}
		x.w.Header().Add("Warning", text)
	}
}

// maxWarnings is what the specification allows in all, in bytes, less the names of the headers.
const maxWarnings = 3 << 10
