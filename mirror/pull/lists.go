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
// the query for the next page (ECR's query is opaque). Tags of queued pushes are added to the last
// page. The repository's name and the link to the next page are rewritten for the client.
func (p *Puller) Tags(x *request.Request) error {
	query, err := url.ParseQuery(x.Q.Page)
	if err != nil {
		return oci.ErrPaginationInvalid.Because(err)
	}
	if x.Q.N >= 0 {
		query.Set("n", strconv.Itoa(x.Q.N))
	}
	if x.Q.Last != "" {
		query.Set("last", x.Q.Last)
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	return p.lender.InTurn(ctx, x, func() error { return p.tags(ctx, x, query) })
}

func (p *Puller) tags(ctx context.Context, x *request.Request, query url.Values) error {
	ctx, cancel := fallback.Patience(ctx, x.Repo)
	defer cancel()
	x.Source = fromOrigin
	page, err := x.Repo.Up.Lister.Tags(ctx, x.Repo.Remote(), query)
	if err != nil && len(x.Repo.QueuedTags()) > 0 {
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
	if len(page.Next) == 0 {
		list.Tags = withQueued(x.Repo.QueuedTags(), list.Tags, x.Q.Last, x.Q.N)
	}
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

// withQueued adds queued tags to the final page of the upstream's tags, until the page has n tags.
// The client asks for the tags that follow lastTag, so only tags that sort after it are added. A
// negative n means no bound.
func withQueued(queued, tags []string, lastTag string, n int) []string {
	inOrder := slices.IsSorted(tags)
	for _, t := range queued {
		if t > lastTag && !slices.Contains(tags, t) && (n < 0 || len(tags) < n) {
			tags = append(tags, t)
		}
	}
	if inOrder {
		slices.Sort(tags)
	}
	return tags
}
