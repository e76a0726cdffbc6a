package window

import (
	"context"
	"iter"
	"net/url"

	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/explain"
	"dray/mirror/live"
)

// LiveAPI lists the endpoints that show the pulls and pushes under way. The streams of events end
// when streamCtx ends.
func LiveAPI(streamCtx context.Context, t *live.Table) []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("live", func(context.Context, url.Values) (api.Live, error) { return t.Snapshot(), nil }),
		admin.Watch("live/events", streamCtx, func(ctx context.Context, _ url.Values) iter.Seq2[api.Live, error] { return t.Watch(ctx) }),
	}
}

// ExplainAPI lists the endpoints that explain the name of an image, or past requests.
func ExplainAPI(e *explain.Explainer) []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("explain", func(ctx context.Context, params url.Values) (api.Explanation, error) {
			return e.Explain(ctx, explain.Query{
				Name: params.Get("name"), Listener: params.Get("listener"), User: params.Get("as"), Platforms: params["platform"], Accept: params["accept"],
			})
		}),
		admin.Query("misses", func(_ context.Context, params url.Values) (api.Misses, error) {
			most, err := admin.Number(params, "most", 100)
			return e.Misses(int(min(most, 1<<20)), params.Get("request")), err
		}),
	}
}
