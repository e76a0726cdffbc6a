package pull

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"dray/mirror/fallback"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream/oci"
)

// queuedAfter is a query parameter of the link to the next page. Its value is the last queued tag
// that the client has on earlier pages.
const queuedAfter = "queued_after"

// Tags answers with a page of the upstream's tags. The upstream decides the order of the tags and
// the query for the next page (ECR's query is opaque). dray adds the tags of queued pushes to the
// first page. If the page has no room for them, they fill pages before those of the upstream. A
// further page of the upstream may have such a tag again. The repository's name and the link to the
// next page are rewritten for the client.
func (p *Puller) Tags(x *request.Request) error {
	query, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	shown := query.Get(queuedAfter)
	query.Del(queuedAfter)
	if x.Q.Last != "" {
		query.Set("last", x.Q.Last)
	}
	n, after, first := x.Q.N, cmp.Or(shown, x.Q.Last), len(query) == 0
	queued := slices.DeleteFunc(x.Repo.QueuedTags(), func(t string) bool { return n == 0 || t <= after })
	if n > 0 && n <= len(queued) {
		x.Source = fromCache
		query.Set("n", strconv.Itoa(n))
		return p.sendTags(x, queued[:n], query, queued[n-1])
	}
	if n >= 0 {
		query.Set("n", strconv.Itoa(n-len(queued))) // leaves room for the queued tags
	}
	if len(queued) > 0 {
		shown = queued[len(queued)-1]
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(ctx, x, func() error {
		tags, next, err := upstreamTags(ctx, x, query)
		if err != nil && (!first || shown == "") {
			return err
		}
		if err != nil { // the upstream sent no list, so the answer has only the queued tags
			x.Source = fromCache
		}
		return p.sendTags(x, withQueued(queued, tags, len(next) == 0), next, shown)
	})
}

// upstreamTags gets a page of the upstream's tags, and the query for the next page.
func upstreamTags(ctx context.Context, x *request.Request, query url.Values) ([]string, url.Values, error) {
	ctx, cancel := fallback.Patience(ctx, x.Repo)
	defer cancel()
	x.Source = fromOrigin
	page, err := x.Repo.Up.Lister.Tags(ctx, x.Repo.Remote(), query)
	if err != nil {
		return nil, nil, err
	}
	var list tagList
	if err := json.Unmarshal(page.Body, &list); err != nil {
		return nil, nil, badListing(x.Repo, err)
	}
	return list.Tags, page.Next, nil
}

// tagList is the JSON form of a page.
type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// sendTags sends a page. shown is the last queued tag on this page and earlier pages, or empty.
func (p *Puller) sendTags(x *request.Request, tags []string, next url.Values, shown string) error {
	if tags == nil { // some registries send null, which some clients cannot read
		tags = []string{}
	}
	if len(next) > 0 && shown != "" {
		next.Set(queuedAfter, shown)
	}
	p.warn(x)
	body, err := json.Marshal(tagList{x.Q.Repo, tags})
	if err != nil {
		return err
	}
	return x.SendList(body, "application/json; charset=utf-8", next)
}

func badListing(r repository.Repo, cause error) error {
	return r.Up.BadAnswer("an invalid list", cause)
}

// withQueued adds the queued tags that a page of the upstream lacks. It puts them before the tags
// of the page, because a client may ask for the tags after the last tag that it got, and the
// upstream must have that tag. If whole is set, the upstream has no further page. If the tags of
// the page are then sorted, withQueued sorts the result.
func withQueued(queued, tags []string, whole bool) []string {
	all := slices.Concat(slices.DeleteFunc(slices.Clone(queued), func(t string) bool { return slices.Contains(tags, t) }), tags)
	if whole && slices.IsSorted(tags) {
		slices.Sort(all)
	}
	return all
}
