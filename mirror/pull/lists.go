package pull

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"dray/mirror/fallback"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// Tags answers with a page of the upstream's tags. The upstream decides the order of the tags and
// the query for the next page (ECR's query is opaque). dray adds the tags of queued pushes to the
// first page. A further page of the upstream may have such a tag again. The repository's name and
// the link to the next page are rewritten for the client.
func (p *Puller) Tags(x *request.Request) error {
	query, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	var queued []string
	if x.Q.Last == "" && x.Q.Page == "" && x.Q.N != 0 {
		queued = x.Repo.QueuedTags()
	}
	if n := x.Q.N; n >= 0 {
		if n > len(queued) {
			n -= len(queued) // the page has room for the queued tags
		}
		query.Set("n", strconv.Itoa(n))
	}
	if x.Q.Last != "" {
		query.Set("last", x.Q.Last)
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(ctx, x, func() error { return p.tags(ctx, x, query, queued) })
}

func (p *Puller) tags(ctx context.Context, x *request.Request, query url.Values, queued []string) error {
	ctx, cancel := fallback.Patience(ctx, x.Repo)
	defer cancel()
	x.Source = fromOrigin
	page, err := x.Repo.Up.Lister.Tags(ctx, x.Repo.Remote(), query)
	if err != nil && len(queued) > 0 {
		x.Source = fromCache
		page, err = upstream.Page{Body: []byte("{}")}, nil // answer with only the queued tags
	}
	if err != nil {
		return err
	}
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(page.Body, &list); err != nil {
		return badListing(x.Repo, err)
	}
	list.Tags = withQueued(queued, list.Tags, len(page.Next) == 0)
	if list.Tags == nil { // some registries send null, which some clients cannot read
		list.Tags = []string{}
	}
	p.warn(x)
	list.Name = x.Q.Repo
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return x.SendList(body, "application/json; charset=utf-8", page.Next)
}

func badListing(r repository.Repo, cause error) error {
	return r.Up.BadAnswer("an invalid list", cause)
}

// withQueued adds the queued tags that a page lacks. They come first, because clients may ask for
// the tags after the last tag of a page. If the page has all tags, in order, they stay in order.
func withQueued(queued, tags []string, whole bool) []string {
	all := slices.Concat(slices.DeleteFunc(slices.Clone(queued), func(t string) bool { return slices.Contains(tags, t) }), tags)
	if whole && slices.IsSorted(tags) {
		slices.Sort(all)
	}
	return all
}
