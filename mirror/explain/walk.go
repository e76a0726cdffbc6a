package explain

import (
	"context"
	"errors"
	"net/http"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/cache"
	"dray/mirror/admin/api"
	"dray/mirror/inventory"
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/warming"
	"dray/upstream"
	"dray/upstream/oci"
)

const (
	// maxDepth bounds how deep Explain follows indexes in indexes. maxParts bounds the number of parts
	// of an answer.
	maxDepth = 4
	maxParts = 10_000
)

// walk goes through the parts of an image as a pull does, and collects the requests that the pull
// would send to upstreams.
type walk struct {
	*Explainer
	ctx     context.Context
	out     *api.Explanation
	turns   // which upstream answers: the one that the name means, or a fallback
	need    repository.Need
	accept  []string
	on      []v1.Platform
	seen    map[digest.Digest]bool
	greeted map[string]bool // the upstreams whose GET of /v2/ is among the requests
}

func (e *Explainer) walk(ctx context.Context, out *api.Explanation, r repository.Repo, l *request.Listener, q Query, on []v1.Platform) *walk {
	w := &walk{
		Explainer: e, ctx: ctx, out: out, need: repository.Serve, accept: q.Accept, on: on, seen: map[digest.Digest]bool{}, greeted: map[string]bool{},
		turns: turns{named: r, may: func(u *repository.Upstream) bool { return l.Routes.Serves(u.Name, r.Name) }},
	}
	w = w.at(r)
	if l.TakesPushes() {
		w.need = repository.ServePusher
	}
	if len(w.accept) == 0 {
		w.accept = oci.AnyManifest()
	}
	return w
}

// explain fills in what the answer says about the image and the pull.
func (w *walk) explain(ref oci.Reference) error {
	w.out.Upstream = w.state(w.repo)
	w, o := w.whoseManifest(ref, false)
	if !ref.ByDigest() {
		w.out.Tag = w.tag(o)
	}
	if !repository.Same(w.repo, w.named) {
		w.out.Pull.Fallback = w.repo.Up.Name
	}
	pull := &w.out.Pull
	switch admission := w.admission(o.Held); {
	case o.Absent != nil:
		pull.Serves, pull.Why = api.ServeAbsent, oci.AsError(o.Absent).Message
	case !o.Asks:
		pull.Serves = api.ServeCache // also if the bytes come from the tier
	case o.Background:
		pull.Serves = api.ServeUpdating
	case admission.Refusal != "" && o.MayServeOld:
		pull.Serves, pull.Why = api.ServeStale, admission.Refusal
	case admission.Refusal != "":
		pull.Serves, pull.Why = api.ServeDown, admission.Refusal
	case o.Question == upstream.DescribeManifest && len(o.Then) == 0:
		pull.Serves = api.ServeConfirm
	default:
		pull.Serves = api.ServeOrigin
	}
	if err := w.manifest(ref, o, "", maxDepth); err != nil {
		return err
	}
	w.refuse()
	w.total()
	return nil
}

// look returns the outlook for a manifest.
func (w *walk) look(ref oci.Reference, named bool) pull.Outlook {
	if !w.local {
		return w.o.Pull.Foresee(w.ctx, w.repo, ref, w.accept, named, w.need)
	}
	d, ok := w.hosted(w.repo, ref)
	if !ok {
		return pull.Outlook{Absent: oci.ErrManifestUnknown.With("dray stores no such image")}
	}
	return pull.Outlook{Manifest: repository.Foresight{Repo: w.repo}.PeekAt(w.ctx, d, "")}
}

// refuse removes the requests from the answer if the client of the pull would get an error.
func (w *walk) refuse() {
	pull := &w.out.Pull
	pulls := w.out.Caller.Rights[0]
	switch {
	case w.out.Route.Refused != "":
		pull.Serves, pull.Why = api.ServeRefused, w.out.Route.Refused
	case !pulls.Allowed:
		pull.Serves, pull.Why = api.ServeRefused, "the caller may not pull: "+pulls.Why
	case pull.Serves != api.ServeAbsent && pull.Serves != api.ServeDown:
		return
	}
	pull.Requests, pull.Open = []api.ExplainedRequest{}, false
	for i := range w.out.Parts {
		w.out.Parts[i].Requests = 0
	}
}

func (w *walk) total() {
	pull := &w.out.Pull
	for _, q := range pull.Requests {
		pull.Count += q.Count
		pull.Bytes += max(q.Bytes, 0)
	}
}

// tag describes the state of a tag, according to the outlook for a pull.
func (w *walk) tag(o pull.Outlook) *api.ExplainedTag {
	t, policy := &api.ExplainedTag{State: stateOf(o)}, w.repo.Up.Tags
	if w.local {
		t.State = api.TagHosted
	}
	if o.Manifest != nil {
		t.Digest = o.Manifest.Digest
	}
	if o.Fact == nil {
		return t
	}
	t.Asked = o.Fact.CheckedAt.UTC()
	if o.Fact.NotFound {
		t.Absent, t.Reason = t.Asked.Add(policy.NotFound), o.Fact.Reason.Text
		return t
	}
	t.Digest, t.Fresh, t.Stale = o.Fact.Digest, t.Asked.Add(policy.Fresh), t.Asked.Add(policy.Stale)
	if policy.Fresh > 0 && policy.Revalidate > 0 {
		t.Updating = t.Fresh.Add(policy.Revalidate)
	}
	return t
}

func stateOf(o pull.Outlook) api.Freshness {
	switch {
	case o.Place == repository.InQueue:
		return api.TagQueued
	case o.Fact == nil:
		return api.TagUnknown
	case o.Absent != nil:
		return api.TagAbsent
	case !o.Asks:
		return api.TagFresh
	case o.Background:
		return api.TagUpdating
	case o.MayServeOld:
		return api.TagStale
	case o.Manifest == nil && !o.Fact.NotFound:
		return api.TagLost
	}
	return api.TagExpired
}

// admission returns the decision of the upstream's breaker about a question. The parameter stale
// says that dray has an older answer.
func (w *walk) admission(stale bool) upstream.Admission {
	if w.local {
		return upstream.Admission{}
	}
	return w.registry.Breaker.Foresee(w.repo.Remote().Name, stale || w.repo.Up.Yields())
}

// ask adds the request for a part to the answer, unless the breaker would refuse it.
func (w *walk) ask(part *api.ExplainedPart, q upstream.Question, request api.ExplainedRequest, ref oci.Reference, held bool) {
	a := w.admission(held)
	if a.Refusal != "" {
		part.Unavailable = !held
		return
	}
	if a.Hello && !w.greeted[w.repo.Up.Name] {
		w.greeted[w.repo.Up.Name] = true
		w.out.Pull.Requests = append(w.out.Pull.Requests, api.ExplainedRequest{
			Upstream: w.repo.Up.Name, Method: http.MethodGet, Path: "/v2/", Count: 1, Bytes: -1, Why: "the upstream has failed, and this finds out whether it is back",
		})
	}
	request.Upstream = w.repo.Up.Name
	request.Method, request.Path = upstream.RequestOf(w.registry.Client, q, w.repo.Remote(), ref)
	w.out.Pull.Requests = append(w.out.Pull.Requests, request)
	part.Requests += request.Count
}

// manifest adds a manifest and the parts below it.
func (w *walk) manifest(ref oci.Reference, o pull.Outlook, platform string, depth int) error {
	part := api.ExplainedPart{Kind: "manifest", Digest: ref.Digest, Size: -1, Platform: platform, Where: []string{}, Unknown: o.Manifest == nil}
	if o.Fact != nil {
		part.Digest, part.MediaType, part.Size = o.Fact.Digest, o.Fact.MediaType, o.Fact.Size
	}
	var man *oci.Manifest
	if o.Manifest != nil {
		part.Digest, part.MediaType, part.Size = o.Manifest.Digest, o.Manifest.MediaType, int64(len(o.Manifest.Raw))
		if man, _ = o.Manifest.Parse(); man != nil && man.Index() { // a manifest that cannot be parsed names no parts
			part.Kind = "index"
		}
	}
	if o.Absent != nil {
		part.Absent = oci.AsError(o.Absent).Message
	}
	w.askManifest(&part, ref, o)
	part.Shared = o.Asks && ref.ByDigest() && (o.Manifest != nil || o.InTier)
	w.place(&part, o.Place)
	if o.InTier {
		part.Where = append(part.Where, "bucket")
	}
	w.seen[part.Digest] = true
	if w.out.Digest == "" {
		w.out.Digest = part.Digest
	}
	w.out.Parts = append(w.out.Parts, part)
	if man == nil {
		w.out.Pull.Open = w.out.Pull.Open || o.Asks || o.InTier
		return nil
	}
	return w.children(man, o.Records, depth)
}

// askManifest adds the requests that a pull would send for a manifest, if any.
func (w *walk) askManifest(part *api.ExplainedPart, ref oci.Reference, o pull.Outlook) {
	if !o.Asks {
		return
	}
	q := api.ExplainedRequest{Count: 1, Bytes: -1, Background: o.Background}
	switch {
	case len(o.Then) > 0:
		q.Why, q.Bytes = "what the tag means now may be in the bucket", 0
	case o.Question == upstream.DescribeManifest && ref.ByDigest():
		q.Why, q.Bytes = "the bytes are here, and the upstream has not confirmed them for this repository", 0
	case o.Question == upstream.DescribeManifest:
		q.Why, q.Bytes = "the last answer about the tag is no longer fresh", 0
	case o.Fact != nil && !o.Fact.NotFound:
		q.Why, q.Bytes = "the manifest is not here any more", o.Fact.Size
	case ref.ByDigest():
		q.Why = "the manifest is not here"
	default:
		q.Why = "dray knows no answer about the tag"
	}
	if o.Background {
		if quota, ok := w.registry.Limiter.Quota(); o.HeldUp != "" || ok && quota.Reserved {
			return
		}
	}
	w.ask(part, o.Question, q, ref, o.Held)
	for _, then := range o.Then {
		next := api.ExplainedRequest{Count: 1, Bytes: -1, Why: "unless the bucket has the manifest"}
		if o.Fact != nil && !o.Fact.NotFound {
			next.Bytes = o.Fact.Size
		}
		w.ask(part, then, next, ref, o.Held)
	}
}

// children adds the manifests and blobs that man names. Of an index, it adds only the manifests for
// the platforms of the client. The parameter listed is true if the pull records that the repository
// has these children. dray then knows this when the client asks for a child.
func (w *walk) children(man *oci.Manifest, listed bool, depth int) error {
	children := repository.Children(man)
	if man.Index() {
		var err error
		if children, err = warming.Choose(children, w.on); err != nil {
			if errors.Is(err, warming.ErrNoPlatform) {
				err = api.Errorf(api.CodeNotFound, "%v", err)
			}
			return err
		}
	}
	for _, c := range children {
		if w.seen[c.Digest] {
			continue
		}
		if len(w.out.Parts) >= maxParts || c.Manifest && depth == 0 {
			w.out.Pull.Open = true
			return nil
		}
		w.seen[c.Digest] = true
		if !c.Manifest {
			w.blob(man, c, listed)
			continue
		}
		platform := ""
		if c.Platform != nil {
			platform = platforms.Format(*c.Platform)
		}
		ref := oci.Reference{Digest: c.Digest}
		at, o := w.whoseManifest(ref, listed)
		if err := at.manifest(ref, o, platform, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) blob(man *oci.Manifest, c oci.Child, named bool) {
	part := api.ExplainedPart{Kind: "layer", Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Where: []string{}}
	if man.Config != nil && man.Config.Digest == c.Digest {
		part.Kind = "config"
	}
	w, at, err := w.whoseBlob(c.Digest, named)
	h := w.place(&part, at.Place)
	ref := oci.Reference{Digest: c.Digest}
	tier := !h.Held() && !h.Arriving && !w.local && err == nil && w.inTier(c.Digest, at, named)
	if tier {
		part.Where = append(part.Where, "bucket")
	}
	switch {
	case w.local:
	case err != nil:
		part.Absent = oci.AsError(err).Message
	case at.Place == repository.Shared, at.Place == repository.Nowhere && h.Arriving:
		part.Shared = true
		w.ask(&part, upstream.DescribeBlob, api.ExplainedRequest{
			Count: 1, Why: "the bytes are here, and the upstream has not confirmed them for this repository",
		}, ref, false)
	case h.Held(), h.Arriving, tier:
	default:
		w.ask(&part, upstream.GetBlob, api.ExplainedRequest{
			Count: w.repo.Up.Split.Requests(at.Size), Bytes: c.Size, Why: "it is not here",
		}, ref, false)
	}
	w.out.Parts = append(w.out.Parts, part)
}

// place adds the places of the bytes to a part.
func (w *walk) place(p *api.ExplainedPart, at repository.Place) cache.Holding {
	h := w.o.Cache.Inspect(p.Digest)
	add := func(there bool, where string) {
		if there {
			p.Where = append(p.Where, where)
		}
	}
	add(h.InMemory, "memory")
	add(h.Disk != nil, "disk")
	add(at == repository.InQueue, "queue")
	add(at == repository.InStaging || at == repository.InWaiting, "staging")
	add(h.Arriving, "arriving")
	if h.Disk != nil {
		b := inventory.BlobOf(*h.Disk)
		p.Blob = &b
	}
	if h.Size >= 0 {
		p.Size = h.Size
	}
	return h
}
