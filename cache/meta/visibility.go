package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// LinkFact describes linked content. In most cases its values come from a manifest that references
// the content.
type LinkFact struct {
	MediaType string
	Size      int64 // bytes; negative if unknown
	Kind      Kind
}

// Link is a digest with the fact about it.
type Link struct {
	Digest digest.Digest
	LinkFact
}

// Visibility remembers under which repositories dray may serve a digest without asking the
// upstream. All repositories share bytes, but not visibility. A link of a repository to a digest
// says that a manifest of the repository names the digest, or that the upstream has confirmed the
// digest there. One link alone does not make the digest visible: the method visible of
// mirror/repository.Repo says which links are needed. If one of them is missing, dray does not deny
// access, but asks the upstream.
type Visibility struct {
	ledger[linkRecord]
	now bool // the method In reads from the store, and not from memory
}

// NewVisibility returns the links in s. By default they are kept for 30 days after they were last
// added. This bounds how long a digest stays visible in a repository although the upstream no
// longer confirms it.
func NewVisibility(s Store, o Options) *Visibility {
	return &Visibility{ledger: newLedger[linkRecord](s, "visibility", cmp.Or(o.TTL, 30*24*time.Hour))}
}

// Under returns the same links. The lease covers all reads through the result.
func (l *Visibility) Under(lease *Lease) *Visibility {
	leased := *l
	leased.lease = lease
	return &leased
}

// Now returns the same links, but [Visibility.In] of the result reads from the store, and not from
// memory. Now is for callers that know that another mirror has just added links.
func (l *Visibility) Now() *Visibility {
	current := *l
	current.now = true
	return &current
}

// linkRecord is the stored form of a LinkFact.
type linkRecord struct {
	MediaType string `json:"m,omitempty"`
	Size      int64  `json:"s"`
	Kind      Kind   `json:"k"`
}

func (r linkRecord) check() error {
	if !r.Kind.valid() {
		return fmt.Errorf("visibility of unknown kind %q", string(r.Kind))
	}
	return nil
}

// Get returns the link of repo to d, ErrNotFound if there is none, or the failure of the store.
func (l *Visibility) Get(ctx context.Context, upstream, repo string, d digest.Digest) (LinkFact, error) {
	r, err := l.read(ctx, digestKey{upstream, repo, d}.in(linkSpace))
	if err != nil {
		return LinkFact{}, fmt.Errorf("visibility of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return LinkFact(r), nil
}

// In returns the links of several repositories to d, by one request to the store. An element is nil
// if there is no link, or if its record cannot be decoded. An error is a failure of the store.
func (l *Visibility) In(ctx context.Context, upstream string, d digest.Digest, repos ...string) ([]*LinkFact, error) {
	keys := make([]string, len(repos))
	for i, repo := range repos {
		keys[i] = digestKey{upstream, repo, d}.in(linkSpace)
	}
	var seen []Seen
	var err error
	if l.now {
		seen, err = Reread(ctx, l.store, keys)
	} else {
		seen, err = GetAllLeased(ctx, l.store, keys, l.lease)
	}
	if err != nil {
		return nil, fmt.Errorf("visibility at %s of %s: %w", upstream, d, err)
	}
	links := make([]*LinkFact, len(repos))
	for i, s := range seen {
		if !s.Found {
			continue
		}
		if r, err := l.decode(s.Value); err == nil {
			links[i] = (*LinkFact)(&r)
		}
	}
	return links, nil
}

// Add stores links of repo. A caller adds a manifest and all its children in one call. The TTL of a
// link that exists already begins again.
func (l *Visibility) Add(ctx context.Context, upstream, repo string, links ...Link) error {
	entries := make([]Entry, 0, len(links))
	for _, link := range links {
		e, err := l.entry(digestKey{upstream, repo, link.Digest}.in(linkSpace), linkRecord(link.LinkFact))
		if err = errors.Join(err, checkDigest(link.Digest)); err != nil {
			return fmt.Errorf("visibility in %s/%s: %w", upstream, repo, err)
		}
		entries = append(entries, e)
	}
	if err := PutAll(ctx, l.store, entries, l.ttl); err != nil {
		return fmt.Errorf("visibility in %s/%s: %w", upstream, repo, err)
	}
	return nil
}

// Forget removes the link of repo to d, because d was deleted there.
func (l *Visibility) Forget(ctx context.Context, upstream, repo string, d digest.Digest) error {
	if err := l.store.Delete(ctx, digestKey{upstream, repo, d}.in(linkSpace)); err != nil {
		return fmt.Errorf("remove visibility of %s/%s@%s: %w", upstream, repo, d, err)
	}
	return nil
}

// Linked is one link of a listing.
type Linked struct {
	Upstream, Repo string
	Link
}

// All yields the links of one upstream, or of all upstreams if upstream is empty. It is for
// listings, and too slow for a pull: it reads the whole store if the store does not order its keys.
func (l *Visibility) All(ctx context.Context, upstream string) iter.Seq2[Linked, error] {
	return list(ctx, l.ledger, upstreamPrefix(linkSpace, upstream), digestKeyIn(linkSpace), func(k digestKey, r linkRecord) (Linked, error) {
		return Linked{k.upstream, k.repo, Link{k.digest, LinkFact(r)}}, nil
	})
}
