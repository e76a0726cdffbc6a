package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/meta"
	"dray/mirror/fallback"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// listPatience bounds how long a client waits while dray asks for a whole list of referrers. Docker
// 29 asks for such a list in the middle of a pull, and the pull stands still until Docker has the
// answer.
const listPatience = 5 * time.Second

// impatience bounds how long clients wait for lists of referrers. It has a breaker for each
// upstream: for a few seconds after a question without an answer, it sends no further question to
// that upstream.
type impatience struct {
	mu       sync.Mutex // guards breakers
	breakers map[string]*upstream.Breaker
}

func newImpatience() *impatience { return &impatience{breakers: map[string]*upstream.Breaker{}} }

func (i *impatience) breaker(name string) *upstream.Breaker {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.breakers[name] == nil {
		i.breakers[name] = upstream.NewBreaker(upstream.BreakerOptions{Name: name, Threshold: 1})
	}
	return i.breakers[name]
}

// ask calls query with a context that ends after listPatience. query sends a question to the
// upstream with the given name. err is the error of query. unanswered is not nil if the upstream
// gave no answer or was not asked, or if ctx has ended.
func (i *impatience) ask(ctx context.Context, name string, query func(context.Context) error) (err, unanswered error) {
	unanswered = i.breaker(name).Do(func() error {
		bounded, cancel := context.WithTimeout(ctx, listPatience)
		defer cancel()
		err = query(bounded)
		switch {
		case ctx.Err() != nil:
			return context.Canceled
		case NotAnswered(err):
			return upstream.ErrUnreachable
		}
		return nil
	})
	return err, unanswered
}

// maxListPages bounds the pages of a list that dray puts together. A page of Amazon ECR has up to
// 50 referrers (ListImageReferrers, maxResults).
const maxListPages = 20

// errLongList says that a list of referrers is too long to be put together and remembered.
var errLongList = errors.New("long list of referrers")

// emptyList is a list without referrers. A list is kept in the cache as a JSON array of the
// descriptors, as the registry sent them. It is not kept as the index that clients get, because an
// index would look like a pushed manifest.
var emptyList = []byte("[]")

func noReferrers(list []byte) bool { return bytes.Equal(list, emptyList) }

// Referrers answers with the referrers of a manifest. dray remembers a list as it remembers the
// meaning of a tag. It remembers only whole lists: it puts the pages of the registry together, and
// filters the list for each client itself. The answer to a client also has the referrers in the
// queue. A list that is too long to be put together is passed on page by page.
func (p *Puller) Referrers(x *request.Request) error {
	page, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	bounded := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(bounded, x, func() error {
		if len(page) > 0 {
			return p.referrersPage(bounded, x, page, nil)
		}
		return p.referrers(bounded, x)
	})
}

// referrers answers with a whole list. It uses listCtx for requests to the upstream that it sends
// for this client alone.
func (p *Puller) referrers(listCtx context.Context, x *request.Request) error {
	ctx, queued := x.R.Context(), repository.QueuedReferrers(x.Repo, x.Q.Ref.Digest)
	t := tag{repo: x.Repo, name: oci.FallbackTag(x.Q.Ref.Digest), subject: x.Q.Ref.Digest}
	t.after = p.lastAnswer(ctx, x, t)
	a, _, err := p.remembered(ctx, t, true)
	if a == nil && err == nil {
		a, err = p.byTag(ctx, upstream.Call{}, t)
	}
	switch {
	case errors.Is(err, errLongList):
		return p.referrersPage(listCtx, x, nil, queued)
	case err != nil && len(queued) > 0:
		a = &answer{Manifest: &repository.Manifest{Raw: emptyList}, source: fromCache} // answer with only the queued referrers
	case err != nil:
		return err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(a.Raw, &list); err != nil {
		return badListing(x.Repo, err)
	}
	x.Source, x.Stale = a.source, a.stale
	x.W.Header().Set("X-Cache", a.source)
	p.warn(x)
	p.lender.LendListed(x, a.Digest, list)
	return sendReferrers(x, list, queued, nil)
}

// referrersPage passes on one page of a list, adds the descriptors in queued, and remembers
// nothing. The parameter page is the query that asks the registry for this page, nil for the first
// page.
func (p *Puller) referrersPage(ctx context.Context, x *request.Request, page url.Values, queued []oci.Descriptor) error {
	ctx, cancel := fallback.Patience(ctx, x.Repo)
	defer cancel()
	x.Source = fromOrigin
	got, err := x.Repo.Up.Lister.Referrers(ctx, x.Repo.Remote(), x.Q.Ref.Digest, page)
	if err != nil {
		return err
	}
	list, err := descriptors(x.Repo, got.Body)
	if err != nil {
		return err
	}
	p.warn(x)
	p.lender.LendListed(x, digest.FromBytes(got.Body), list)
	return sendReferrers(x, list, queued, got.Next)
}

// sendReferrers sends the descriptors of a list, and the descriptors of queued referrers that are
// not on the list. It leaves out the artifact types that the client does not ask for. nextPage is
// the query of the next page, nil if there is none.
func sendReferrers(x *request.Request, list []json.RawMessage, queued []oci.Descriptor, nextPage url.Values) error {
	listed := map[digest.Digest]bool{}
	wanted := []json.RawMessage{}
	add := func(d oci.Descriptor, raw json.RawMessage) {
		if !listed[d.Digest] && (len(x.Q.ArtifactTypes) == 0 || slices.Contains(x.Q.ArtifactTypes, d.ArtifactType)) {
			wanted = append(wanted, raw)
		}
		listed[d.Digest] = true
	}
	for _, raw := range list {
		var d oci.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			return badListing(x.Repo, err)
		}
		add(d, raw)
	}
	for _, d := range queued {
		raw, err := json.Marshal(d)
		if err != nil {
			return err
		}
		add(d, raw)
	}
	body, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, oci.MediaTypeOCIIndex, wanted})
	if err != nil {
		return err
	}
	if len(x.Q.ArtifactTypes) > 0 {
		x.W.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return x.SendList(body, oci.MediaTypeOCIIndex, nextPage)
}

// descriptors returns the descriptors of an index, unchanged.
func descriptors(r repository.Repo, index []byte) ([]json.RawMessage, error) {
	var page struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(index, &page); err != nil {
		return nil, badListing(r, err)
	}
	return page.Manifests, nil
}

// heldList returns a list of referrers that is in the cache, or nil.
func (f *finder) heldList(ctx context.Context, d digest.Digest) *repository.Manifest {
	raw, err := f.o.Cache.Bytes(ctx, d, oci.MaxManifestBytes)
	if err != nil {
		return nil
	}
	return &repository.Manifest{Raw: raw, Digest: d, MediaType: oci.MediaTypeOCIIndex, Lease: &meta.Lease{}}
}

// storeList caches a list of referrers, unless it would never be served again.
func (f *finder) storeList(ctx context.Context, t tag, list *oci.Manifest) {
	if policy := t.repo.Up.Tags; policy.Fresh <= 0 && policy.Stale <= 0 {
		return
	}
	if err := f.o.Cache.Put(ctx, cache.Blob{Digest: list.Digest, Size: int64(len(list.Raw))}, list.Raw); err != nil {
		f.o.Logger.Debug("list of referrers not cached", "digest", t.subject, "error", err)
	}
}

// newerList asks the upstream for the referrers of a manifest, and returns nil, nil if the list has
// not changed. A client waits for one attempt, and no longer than listPatience. If that time is not
// enough, newerList starts to ask again in the background, for the next client.
func (f *finder) newerList(ctx context.Context, how upstream.Call, t tag, old *answer) (*oci.Manifest, error) {
	var list []json.RawMessage
	ask := func(ctx context.Context) (err error) {
		list, err = f.list(ctx, how, t)
		return err
	}
	var err error
	if how.Background != nil {
		err = ask(ctx)
	} else {
		var unanswered error
		err, unanswered = f.lists.ask(ctx, t.repo.Up.Name, ask)
		switch {
		case ctx.Err() != nil: // no client waits any more
		case err == nil && unanswered != nil:
			err = unanswered
		case errors.Is(err, context.DeadlineExceeded):
			f.startRefresh(t)
		}
	}
	if err != nil {
		return nil, err
	}
	raw := emptyList
	if len(list) > 0 {
		if raw, err = json.Marshal(list); err != nil {
			return nil, badListing(t.repo, err)
		}
	}
	if len(raw) > oci.MaxManifestBytes {
		return nil, errLongList
	}
	d := digest.FromBytes(raw)
	if old != nil && old.Digest == d {
		return nil, nil
	}
	return &oci.Manifest{MediaType: oci.MediaTypeOCIIndex, Raw: raw, Digest: d}, nil
}

// list asks the upstream for all pages of a list of referrers.
func (f *finder) list(ctx context.Context, how upstream.Call, t tag) (all []json.RawMessage, err error) {
	var next url.Values
	for range maxListPages {
		page, err := t.repo.Up.Lister.Referrers(ctx, t.repo.Remote().With(how), t.subject, next)
		if errors.Is(err, upstream.ErrReferrersUnsupported) {
			return f.fallbackList(ctx, how, t)
		}
		if err != nil {
			return nil, err
		}
		more, err := descriptors(t.repo, page.Body)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
		if next = page.Next; len(next) == 0 {
			return all, nil
		}
	}
	return nil, errLongList
}

// fallbackList reads a list of referrers from the fallback tag of its subject, at a registry
// without the referrers call (spec, "Listing Referrers").
func (f *finder) fallbackList(ctx context.Context, how upstream.Call, t tag) ([]json.RawMessage, error) {
	byTag := tag{repo: t.repo, name: t.name, accept: []string{oci.MediaTypeOCIIndex}, after: t.after}
	if m := t.repo.Queued(oci.Reference{Tag: byTag.name}, byTag.accept); m != nil {
		return descriptors(t.repo, m.Raw)
	}
	a, err := f.freshOrAsk(ctx, how, byTag)
	switch {
	case oci.NotFound(err) && !errors.Is(err, oci.ErrNameUnknown), err == nil && a.Digest == t.subject:
		// If a.Digest is t.subject, the registry has read the tag as the digest, as registry.gitlab.com
		// does, and has sent the subject itself. If the subject is an index, the manifests in it are its
		// platforms, and not referrers.
		return nil, nil
	case err != nil:
		return nil, err
	case a.stale != nil:
		// The upstream did not answer now, so this is an earlier answer to the question for the tag. The
		// error lets the caller use its earlier list, if it has one.
		return nil, a.stale
	case a.MediaType != oci.MediaTypeOCIIndex:
		return nil, badListing(t.repo, fmt.Errorf("tag %s is a %s", t.name, a.MediaType))
	}
	return descriptors(t.repo, a.Raw)
}
