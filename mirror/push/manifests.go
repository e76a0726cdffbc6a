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
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// containerdWaits bounds the time until a push of a client with containerd's transport is
// answered. The client gives up 30 s after its last byte.
const containerdWaits = 25 * time.Second

// othersWait is the same for clients without a limit of their own.
const othersWait = 10 * time.Minute

// errStillCopying ends the wait of a client. The push goes on.
var errStillCopying = errors.New("still copying")

// PutManifest handles PUT of a manifest.
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
		// A 4xx, because its text reaches the terminal and clients do not retry it.
		return oci.ErrDenied.With("the mirror has the image and is still copying it to %s (%d %%); push again later to finish, and no layer is sent twice",
			x.Repo.Up.Registry, percentCopied(x.R.Context(), x.Repo, man))
	}
	if r, ok := errors.AsType[*gate.Rejected](err); ok {
		return denied(x, r.Report)
	}
	if err != nil {
		return deniedAs403(x.Repo, err)
	}
	if pushed.Subject != "" {
		x.W.Header().Set("OCI-Subject", pushed.Subject.String())
	}
	for _, tag := range x.Q.Tags {
		x.W.Header().Add("OCI-Tag", tag)
	}
	return x.CreatedAt(oci.Request{Kind: oci.KindManifest, Ref: oci.Reference{Digest: man.Digest}}, man.Digest)
}

// push pushes a manifest under one reference, once for all clients that push the same.
func (p *Pusher) push(ctx context.Context, x *request.Request, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	gated := gatedPush{
		Push:  gate.Push{Repo: x.Repo, Gate: p.o.Checks.For(x.Repo), User: x.Caller.Name, Ref: ref, Manifest: man, Cause: x.Cause()},
		owner: x.Owner(),
	}
	if gated.Gate != nil {
		gated.Within = verdictWithin(gated.Gate, x)
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
	if err == nil && gated.Gate != nil {
		warn(x, p.o.Checks.ReportOf(gated.Key()))
	}
	return pushed, err
}

// check passes a manifest through the gate of its repository, if there is one. Then it forwards
// the manifest, queues it, stores it as a build cache, or lets it wait for a manifest that
// refers to it.
func (p *Pusher) check(ctx context.Context, gated gatedPush) (upstream.Pushed, error) {
	r := gated.Repo
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
		p.addWaiting(gated)
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

// serialize forwards an image or puts it into the queue. If there are checks, it runs one push
// of a tag at a time and checks the name again, because the tag may have been given to another
// image since the verdict.
func (p *Pusher) serialize(ctx context.Context, gated gatedPush) (upstream.Pushed, error) {
	if gated.Gate != nil && gated.Ref.Tag != "" {
		unlock, err := p.tagLocks.Lock(ctx, tagKey{gated.Repo, gated.Ref.Tag})
		if err != nil {
			return upstream.Pushed{}, err
		}
		defer unlock()
		if err := p.o.Checks.CheckName(ctx, gated.Push); err != nil {
			return upstream.Pushed{}, err
		}
	}
	if gated.Repo.Up.AcknowledgeLocally {
		return p.acknowledgeOrPublish(ctx, gated)
	}
	return p.publish(ctx, upstream.Call{}, gated.Repo, gated.Ref, gated.Manifest)
}

// mustWait reports whether a manifest that passed its checks waits for a manifest that refers
// to it, or for its subject. If its subject has been forwarded, it does not wait, because no
// manifest will refer to it. BuildKit pushes referrers before their subject.
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

// defaultHold is how long manifests wait if HoldFor is not set.
const defaultHold = time.Hour

func (p *Pusher) addWaiting(gated gatedPush) {
	hold := gated.Gate.HoldFor
	if hold <= 0 {
		hold = defaultHold
	}
	p.o.Repositories.Waiting().Add(gated.Repo.Key(gated.Manifest.Digest), gated.Manifest, gated.owner, time.Now().Add(hold))
}

// patience returns how long the client waits for the answer.
func patience(x *request.Request) time.Duration {
	patience := cmp.Or(x.Listener.AnswerWithin, othersWait)
	if strings.Contains(strings.ToLower(x.R.UserAgent()), "containerd") {
		patience = min(patience, containerdWaits)
	}
	return patience
}

// verdictWithin returns how long a client waits for a verdict. The rest of its patience is for
// forwarding.
func verdictWithin(g *gate.Gate, x *request.Request) time.Duration {
	patience := patience(x)
	within := patience - patience/10
	if patience > containerdWaits {
		return within
	}
	return min(cmp.Or(g.Within, 20*time.Second), within)
}

// readManifest parses the body and checks it against the digest in the URL.
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

// checkName runs the checks of the name, before any byte is received.
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

// denied converts a rejection to an error whose text reaches the terminal.
func denied(x *request.Request, r *pipeline.Report) error {
	return oci.ErrDenied.With("%s", r.Message(x.ReportURL(r.ID)))
}

// warn sends the findings of a passing push as Warning headers (spec, "Warnings").
func warn(x *request.Request, r *pipeline.Report) {
	if r == nil {
		return
	}
	size := 0
	for _, f := range r.Findings {
		text := fmt.Sprintf("299 - %q", strings.ReplaceAll(fmt.Sprintf("[%s/%s] %s", f.Stage, f.Rule, f.What), `"`, "'"))
		if size += len(text); f.Waived != "" || size > maxWarnings {
			continue
		}
		x.W.Header().Add("Warning", text)
	}
}

// maxWarnings is the total size that the specification allows, in bytes, less the names of the
// headers.
const maxWarnings = 3 << 10

const kindReport oci.Kind = "report"

// Report answers with a report, to any client that knows its id.
func (p *Pusher) Report(x *request.Request, id string) error {
	x.Q.Kind = kindReport
	if x.R.Method != http.MethodGet && x.R.Method != http.MethodHead {
		return oci.ErrUnsupported.With("reports are read-only")
	}
	report := p.o.Checks.Report(id)
	if report == nil || !x.Listener.TakesPushes() {
		return oci.ErrUnknown.With("the report does not exist or has expired; push again to get a new one").WithStatus(http.StatusNotFound)
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	h := x.W.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	if x.R.Method == http.MethodHead {
		return nil
	}
	_, err = x.W.Write(append(text, '\n'))
	return err
}
