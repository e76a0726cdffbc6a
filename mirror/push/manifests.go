package push

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dray/mirror/gate"
	"dray/mirror/live"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/report"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// containerdWaits bounds the time until dray answers a push of containerd. containerd gives up 30 s
// after it has sent its last byte.
const containerdWaits = 25 * time.Second

// othersWait is the same bound for other clients, if the listener does not set AnswerWithin.
const othersWait = 10 * time.Minute

// errStillCopying ends the request of a client that has waited long enough. The push goes on.
var errStillCopying = errors.New("still copying")

// PutManifest handles a PUT of a manifest. It pushes the manifest under its reference, and under
// the further tags of the request.
func (p *Pusher) PutManifest(x *request.Request) error {
	raw, release, err := p.bodies.read(x)
	if err != nil {
		return err
	}
	defer release()
	man, err := readManifest(x, raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(x.R.Context(), patience(x), errStillCopying)
	defer cancel()
	pushed, err := p.push(ctx, x, x.Q.Ref, man)
	for _, tag := range x.Q.Tags {
		if err == nil {
			_, err = p.push(ctx, x, oci.Reference{Tag: tag}, man)
		}
	}
	if errors.Is(err, errStillCopying) {
		// The status is a 4xx: clients show the message of a 4xx in the terminal, and do not repeat the
		// request.
		return oci.ErrDenied.With("the mirror has the image and is still copying it to %s (%d %%); push again later to finish, and no layer is sent twice",
			x.Repo.Up.Registry, percentCopied(x.R.Context(), x.Repo, man))
	}
	if r, ok := errors.AsType[*gate.Rejected](err); ok {
		return denied(x, r.Report)
	}
	if err != nil {
		return deniedAs403(x.Repo, err)
	}
	x.Live.Pushed(append(x.Q.Tags, x.Q.Ref.String())[0], man.Digest)
	x.Describe(man.Digest, int64(len(man.Raw)))
	if pushed.Subject != "" {
		x.W.Header().Set("OCI-Subject", pushed.Subject.String())
	}
	for _, tag := range x.Q.Tags {
		x.W.Header().Add("OCI-Tag", tag)
	}
	return x.CreatedAt(oci.Request{Kind: oci.KindManifest, Ref: oci.Reference{Digest: man.Digest}}, man.Digest)
}

// push pushes a manifest under one reference. If several clients push it at the same time, the work
// is done once for all of them.
func (p *Pusher) push(ctx context.Context, x *request.Request, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	gated := gatedPush{
		Push:  gate.Push{Repo: x.Repo, Gate: p.o.Checks.For(x.Repo), User: x.Caller.Name, Ref: ref, Manifest: man, Cause: x.Cause()},
		owner: x.Owner(),
	}
	if gated.Gate != nil {
		gated.Within = verdictWithin(gated.Gate, x)
		x.Live.Checks(live.Running)
	}
	up := x.Repo.Up
	pushed, err := p.pushing.Do(ctx, gated.Key(), func(ctx context.Context) (upstream.Pushed, error) {
		pushed, err := p.check(ctx, gated)
		result := outcome(err)
		if err == nil && pushed.Digest == "" && up.AcknowledgeLocally && !up.TakesBuildCache(man) {
			result = "queued"
		}
		p.pushes.WithLabelValues(up.Name, result).Inc()
		return pushed, err
	})
	if gated.Gate != nil {
		report := p.o.Checks.ReportOf(gated.Key())
		if report != nil {
			x.Live.Checks(report.Outcome())
		}
		if err == nil {
			warn(x, report)
		}
	}
	return pushed, err
}

// check passes a manifest through the gate of its repository, if there is one. Then it forwards the
// manifest, puts it into the queue, stores it as a build cache, or lets it wait. The result is zero
// if the manifest is in the queue or waits.
func (p *Pusher) check(ctx context.Context, gated gatedPush) (upstream.Pushed, error) {
	r := gated.Repo
	if p.o.Shares(r) {
		gated.since = repository.BeforePush(ctx, r, gated.Ref)
	}
	p.o.Repositories.Staged().Renew(repository.Keys(r, gated.Manifest.Children())...)
	var verdict *pipeline.Report
	if gated.Gate != nil {
		var err error
		if verdict, err = p.o.Checks.Pass(ctx, gated.Push, contents{p, r, gated.Gate}); err != nil {
			return upstream.Pushed{}, err
		}
	}
	if r.Up.TakesBuildCache(gated.Manifest) {
		return p.publishBuildCache(ctx, r, gated.Ref, gated.Manifest)
	}
	switch wait, err := mustWait(ctx, gated.Push); {
	case err != nil:
		return upstream.Pushed{}, err
	case wait:
		p.addWaiting(ctx, gated)
		return upstream.Pushed{}, nil
	}
	pushed, err := p.serialize(ctx, gated)
	if err == nil {
		if gated.Gate != nil && gated.Gate.Attach {
			p.o.Verdicts.Attach(r, gated.Ref, gated.Manifest, verdict)
		}
		p.o.Checks.Emit(notify.Push, r.Up.Name, gated.User, gated.Cause, notify.Target{
			MediaType: gated.Manifest.MediaType, Digest: gated.Manifest.Digest, Size: int64(len(gated.Manifest.Raw)), Repository: r.Name, Tag: gated.Ref.Tag,
		})
	}
	return pushed, err
}

// serialize forwards a manifest or puts it into the queue. With a gate, it runs one push of a tag
// at a time. It also checks the name again: some tags must not be moved, and another push may have
// set the tag since the verdict. If another member of the fleet has taken over the repository,
// serialize returns an error instead of queueing the push: that member would not know of the
// queued push.
func (p *Pusher) serialize(ctx context.Context, gated gatedPush) (upstream.Pushed, error) {
	if gated.Gate != nil && gated.Ref.Tag != "" {
		unlock, err := p.tagLocks.Lock(ctx, tagKeyOf(gated.Repo, gated.Ref.Tag))
		if err != nil {
			return upstream.Pushed{}, err
		}
		defer unlock()
		if err := p.o.Checks.CheckName(ctx, gated.Push); err != nil {
			return upstream.Pushed{}, err
		}
	}
	if !gated.Repo.Up.AcknowledgeLocally {
		return p.publishAfterQueue(ctx, gated)
	}
	if p.o.Shares(gated.Repo) {
		if err := p.o.Confirm(ctx, gated.Repo); err != nil {
			return upstream.Pushed{}, err
		}
		if _, err := p.current(ctx, gated.Repo, gated.Ref, gated.since); err != nil {
			return upstream.Pushed{}, err
		}
	}
	return p.acknowledgeOrPublish(ctx, gated)
}

// mustWait reports whether a manifest that passed its checks has to wait. A manifest waits only if
// it is pushed by digest and has a gate that does not set ForwardDigests. A referrer waits until
// its subject has been forwarded or queued: BuildKit pushes referrers before their subject. Any
// other manifest waits for a manifest that refers to it. But it does not wait if a fact says that
// the upstream already has it.
func mustWait(ctx context.Context, p gate.Push) (bool, error) {
	if p.Gate == nil || p.Gate.ForwardDigests || p.Ref.Tag != "" {
		return false, nil
	}
	if p.Manifest.Subject != nil {
		at, err := p.Repo.LocateManifest(ctx, p.Manifest.Subject.Digest, nil, repository.Forwarded)
		return at.Place == repository.Nowhere || at.Place == repository.InWaiting, err
	}
	return !p.Repo.PresentAtTarget(ctx, p.Manifest.Digest), nil
}

// patience returns how long dray lets the client wait for the answer.
func patience(x *request.Request) time.Duration {
	patience := cmp.Or(x.Listener.AnswerWithin, othersWait)
	if strings.Contains(strings.ToLower(x.R.UserAgent()), "containerd") {
		patience = min(patience, containerdWaits)
	}
	return patience
}

// verdictWithin returns how long a client waits for a verdict: nine tenths of its patience, so that
// the rest is for forwarding. If the patience is at most containerdWaits, the gate's Within also
// bounds the time.
func verdictWithin(g *gate.Gate, x *request.Request) time.Duration {
	patience := patience(x)
	within := patience - patience/10
	if patience > containerdWaits {
		return within
	}
	return min(cmp.Or(g.Within, 20*time.Second), within)
}

// readManifest parses the body and checks it against the digest in the URL, if there is one.
func readManifest(x *request.Request, raw []byte) (*oci.Manifest, error) {
	man, err := oci.ParseManifest(x.R.Header.Get("Content-Type"), raw)
	if err != nil {
		return nil, err
	}
	if man.Schema1() {
		return nil, oci.ErrManifestInvalid.With("manifests of schema version 1 are not supported; use a current client")
	}
	if want := x.Q.Ref.Digest; want != "" {
		if got := want.Algorithm().FromBytes(raw); got != want {
			return nil, oci.ErrDigestInvalid.With("the manifest has the digest %s, not %s", got, want)
		}
		man.Digest = want
	}
	return man, nil
}

// checkName runs the checks of the repository's name before an upload begins.
func (p *Pusher) checkName(x *request.Request) error {
	g := p.o.Checks.For(x.Repo)
	if g == nil {
		return nil
	}
	err := p.o.Checks.CheckName(x.R.Context(), gate.Push{Repo: x.Repo, Gate: g, User: x.Caller.Name, Cause: x.Cause()})
	if r, ok := errors.AsType[*gate.Rejected](err); ok {
		return denied(x, r.Report)
	}
	return err
}

// denied converts the report of a rejection to an error whose text clients show in the terminal.
func denied(x *request.Request, r *pipeline.Report) error {
	return oci.ErrDenied.With("%s", r.Message(x.ReportURL(r.ID)))
}

// warn adds a Warning header for each finding of a push that passed, unless the finding is waived
// (spec, "Warnings"). It stops before the headers have more than maxWarnings bytes.
func warn(x *request.Request, r *pipeline.Report) {
	if r == nil {
		return
	}
	size := 0
	for _, f := range r.Findings {
		if f.Waived != "" {
			continue
		}
		text := fmt.Sprintf("299 - %q", strings.ReplaceAll(fmt.Sprintf("[%s/%s] %s", f.Stage, f.Rule, f.What), `"`, "'"))
		if size += len(text); size > maxWarnings {
			return
		}
		x.W.Header().Add("Warning", text)
	}
}

// maxWarnings bounds the values of all Warning headers, in bytes. It is below the specification's
// limit, because that limit also counts the names of the headers.
const maxWarnings = 3 << 10

const kindReport oci.Kind = "report"

// Report answers with a report, as a page for browsers and as JSON for other clients. Any client
// that knows the id may read the report through a listener that takes pushes.
func (p *Pusher) Report(x *request.Request, id string) error {
	x.Q.Kind = kindReport
	if x.R.Method != http.MethodGet && x.R.Method != http.MethodHead {
		return oci.ErrUnsupported.With("reports are read-only")
	}
	found := p.o.Checks.Report(id)
	if found == nil || !x.Listener.TakesPushes() {
		return oci.ErrUnknown.With("the report does not exist or has expired; push again to get a new one").WithStatus(http.StatusNotFound)
	}
	h := x.W.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	text, err := json.MarshalIndent(found, "", "  ")
	h.Set("Content-Type", "application/json; charset=utf-8")
	if report.Wanted(x.R.Header.Values("Accept")) {
		text, err = report.Page(found)
		for name, value := range report.Headers() {
			h.Set(name, value)
		}
	}
	if err != nil {
		return err
	}
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	if x.R.Method == http.MethodHead {
		return nil
	}
	_, err = x.W.Write(append(text, '\n'))
	return err
}
