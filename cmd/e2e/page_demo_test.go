package e2e

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/mirror/admin/page"
)

// demonstration returns what the page shows of a dray that has run for a while at a time: names as
// people give them, and something of every kind.
func demonstration(now time.Time) page.Sources {
	return page.Sources{
		Version: "v0.9.0",
		Ready: func(context.Context) api.Readiness {
			yes, no := true, false
			r := api.Readiness{Status: api.Degraded}
			for _, name := range []string{"running", "metadata", "cache", "pushes", "queue", "certificates", "upstream docker.io", "upstream ghcr.io", "upstream ecr"} {
				r.Checks = append(r.Checks, api.Result{Name: name, OK: &yes})
			}
			r.Checks = append(r.Checks, api.Result{Name: "upstream quay.io", OK: &no, Error: "4 failures in a row, the last: GET https://quay.io/v2/: 502 Bad Gateway"})
			return r
		},
		Stats: func() (api.Stats, error) {
			return api.Stats{Started: now.Add(-9 * 24 * time.Hour), SentBytes: 8_412_000_000_000, FetchedBytes: 611_000_000_000, SavedBytes: 7_801_000_000_000, SavedRatio: 0.927, Requests: 1_284_391, HitRatio: 0.946}, nil
		},
		Live:      func() api.Live { return demoLive(now) },
		Upstreams: func() []page.Upstream { return demoUpstreams(now) },
		Disk: func(context.Context) (page.Disk, error) {
			return page.Disk{
				Used: 1_312_000_000_000, Pinned: 96_000_000_000, Reserved: 4_200_000_000, Max: 2_000_000_000_000, Free: 1_400_000_000_000, Blobs: 41_822,
				Next: &api.Victim{Blob: api.Blob{Digest: digest.FromString("old"), Size: 48_211_004, LastUse: now.Add(-41 * 24 * time.Hour)}},
			}, nil
		},
		Images:  func(context.Context) iter.Seq2[api.Image, error] { return demoImages(now, 240) },
		Explain: func(_ context.Context, name string) (api.Explanation, error) { return demoExplanation(now, name), nil },
		Tell: func(w io.Writer, e api.Explanation) error {
			_, err := fmt.Fprintf(w, "%s\n\nRoute\n  Through the listener mirror, this is the repository library/postgres of the upstream docker.io\n  (registry-1.docker.io), because the name begins with docker.io, a host of the upstream.\n\nTag\n  It means %s,\n  as the upstream said 4 min ago. dray serves that without a question for 56 min more.\n", e.Name, e.Digest)
			return err
		},
		Queue: func() api.Queued { return demoQueue(now) },
		Uploads: func() []page.Upload {
			return []page.Upload{
				{Upstream: "ecr", Repository: "payments/checkout-api", User: "ci", Bytes: 52_400_000},
				{Upstream: "ecr", Repository: "ml/embedding-worker", User: "ci", Bytes: 1_204_000_000, Last: now.Add(-40 * time.Second)},
			}
		},
		Savings:       func() (api.Savings, error) { return demoSavings(now), nil },
		Fleet:         func(context.Context) (api.Fleet, error) { return demoFleet(now), nil },
		Configuration: func() (string, error) { return demoConfiguration, nil },
		// The page asks for the time before its own now, and so for other points at each half hour.
		History: func(from, to time.Time, points int) api.History {
			return demoHistory(now.Add(from.Sub(to)), now, points)
		},
	}
}

func demoLive(now time.Time) api.Live {
	at := func(ago time.Duration) time.Time { return now.Add(-ago) }
	return api.Live{
		At: now,
		Pulls: []api.LivePull{
			{
				LiveEntry: api.LiveEntry{ID: 1, Client: "10.20.4.17", User: "node", Agent: "containerd/v2.1.4", Upstream: "docker.io", Repository: "library/postgres", Reference: "17.2-bookworm", State: api.LiveActive, Began: at(9 * time.Second), Last: now, Rate: 85_300_000},
				Layers:    api.LiveLayers{Asked: 9, Of: 14}, Bytes: 431_000_000, Sources: map[string]int64{"origin": 297_000_000, "disk": 134_000_000},
			},
			{
				LiveEntry: api.LiveEntry{ID: 2, Client: "10.20.7.203", User: "node", Agent: "containerd/v2.1.4", Upstream: "ecr", Repository: "ml/embedding-worker", Reference: "2026.02.27-cuda12", State: api.LiveActive, Began: at(31 * time.Second), Last: now, Rate: 412_800_000},
				Layers:    api.LiveLayers{Asked: 6, Of: 22}, Bytes: 6_204_000_000, Sources: map[string]int64{"disk": 5_100_000_000, "memory": 904_000_000, "member": 200_000_000},
			},
			{
				LiveEntry: api.LiveEntry{ID: 3, Client: "10.20.4.18", Agent: "docker/29.1.2 go/go1.25.5 kernel/6.12.57 os/linux arch/amd64 UpstreamClient(Docker-Client/29.1.2)", Upstream: "ghcr.io", Repository: "fluxcd/source-controller", Reference: "v1.7.3", State: api.LiveIdle, Last: at(7 * time.Second)},
				Layers:    api.LiveLayers{Of: 3}, Bytes: 902, Sources: map[string]int64{"cache": 902},
			},
			{
				LiveEntry: api.LiveEntry{ID: 4, Client: "10.20.9.40", User: "ann", Agent: "Podman/5.4.2", Upstream: "quay.io", Repository: "prometheus/node-exporter", Reference: "v1.9.1", State: api.LiveIdle, Last: at(22 * time.Second), Failures: 2, Error: "upstream answered 502", RequestID: "5XQMZ7KD"},
				Layers:    api.LiveLayers{Asked: 1, Of: 5}, Bytes: 12_100_000, Sources: map[string]int64{"disk": 12_100_000},
			},
		},
		Pushes: []api.LivePush{
			{
				LiveEntry: api.LiveEntry{ID: 5, Client: "10.30.1.6", User: "ci", Agent: "buildkit/v0.24", Upstream: "ecr", Repository: "payments/checkout-api", Reference: "main-4f1c2ab", State: api.LiveActive, Last: now, Rate: 21_000_000},
				Blobs:     4, Received: 52_400_000, Forwarded: 40_000_000, Checks: api.LiveChecksRunning,
			},
			{
				LiveEntry: api.LiveEntry{ID: 6, Client: "10.30.1.9", User: "ci", Agent: "buildkit/v0.24", Upstream: "ecr", Repository: "web/storefront", Reference: "release-118", State: api.LiveIdle, Last: at(12 * time.Second)},
				Blobs:     11, Received: 310_000_000, Forwarded: 310_000_000, Checks: api.LiveChecksReject, Pushed: true,
			},
		},
	}
}

func demoUpstreams(now time.Time) []page.Upstream {
	rates := func(perSecond, ceiling float64, waiting int) []api.ExplainedOperation {
		return []api.ExplainedOperation{{Name: "manifests", PerSecond: perSecond, Ceiling: ceiling, Waiting: waiting}}
	}
	return []page.Upstream{
		{Name: "docker.io", Registry: "registry-1.docker.io", State: &api.ExplainedUpstream{Operations: rates(10, 10, 0), Quota: &api.ExplainedQuota{Limit: 200, Remaining: 143, Seconds: 21600, Asked: now.Add(-3 * time.Minute)}}},
		{Name: "ghcr.io", Registry: "ghcr.io", State: &api.ExplainedUpstream{}},
		{Name: "quay.io", Registry: "quay.io", State: &api.ExplainedUpstream{Down: "the last 4 requests failed", Until: now.Add(4 * time.Second), Failures: 4, Last: "GET https://quay.io/v2/: 502 Bad Gateway"}},
		{Name: "ecr", Registry: ecrName, Push: true, State: &api.ExplainedUpstream{Operations: []api.ExplainedOperation{
			{Name: "BatchGetImage", PerSecond: 1000, Ceiling: 2000, Waiting: 3, Paused: now.Add(2 * time.Second), Last: "429 Too Many Requests"}, {Name: "GetDownloadUrlForLayer", PerSecond: 3000, Ceiling: 3000},
		}}},
		{Name: "build-caches", Registry: "stored in dray alone", Push: true},
	}
}

// demoImages yields n images.
func demoImages(now time.Time, n int) iter.Seq2[api.Image, error] {
	teams := []string{"docker.io/library/%s", "ecr/payments/%s", "ecr/web/%s", "ecr/ml/%s", "ghcr.io/platform/%s", "quay.io/observability/%s"}
	services := []string{"alpine", "checkout-api", "storefront", "embedding-worker", "node", "postgres", "gateway", "ledger", "search-indexer", "redis", "billing-worker", "feature-store"}
	return func(yield func(api.Image, error) bool) {
		for i := range n {
			whole := fmt.Sprintf(teams[i%len(teams)], services[i/len(teams)%len(services)])
			if i >= len(teams)*len(services) {
				whole += fmt.Sprintf("-%d", i/len(teams)/len(services))
			}
			upstream, repository, _ := strings.Cut(whole, "/")
			image := api.Image{
				Upstream: upstream, Repository: repository, Tags: []string{fmt.Sprintf("v%d.%d.%d", 1+i%4, i%13, i%7)}, Digest: digest.FromString(whole), MediaType: "application/vnd.oci.image.index.v1+json",
				Parts: 6 + i%9, Bytes: int64(1+i%17) * 41_300_221, LastUse: now.Add(-time.Duration(i*i%9000) * time.Minute), Pinned: i%23 == 1, Queued: i%31 == 7,
			}
			if i%3 == 0 {
				image.Tags = append([]string{"latest"}, image.Tags...)
			}
			image.HeldParts, image.HeldBytes = image.Parts, image.Bytes
			if i%8 == 5 {
				image.HeldParts, image.HeldBytes = image.Parts-3, image.Bytes/3
			}
			if !yield(image, nil) {
				return
			}
		}
	}
}

func demoExplanation(now time.Time, name string) api.Explanation {
	blob := func(ago time.Duration, pinned bool) *api.Blob {
		return &api.Blob{LastUse: now.Add(-ago), Pinned: pinned}
	}
	return api.Explanation{
		Name: name, Time: now, Digest: digest.FromString(name),
		Route: api.ExplainedRoute{Listener: "mirror", Upstream: "docker.io", Registry: "registry-1.docker.io", Repository: "library/postgres", Remote: "library/postgres"},
		Tag:   &api.ExplainedTag{State: api.TagFresh, Asked: now.Add(-4 * time.Minute), Fresh: now.Add(56 * time.Minute)},
		Pull:  api.ExplainedPull{Serves: api.ServeCache, Count: 2, Bytes: 61_200_118},
		Parts: []api.ExplainedPart{
			{Kind: "index", Digest: digest.FromString("index"), Size: 9_112, Where: []string{"memory", "disk"}, Blob: blob(4*time.Minute, true)},
			{Kind: "manifest", Platform: "linux/amd64", Digest: digest.FromString("manifest"), Size: 2_811, Where: []string{"disk"}, Blob: blob(4*time.Minute, true)},
			{Kind: "config", Digest: digest.FromString("config"), Size: 10_022, Where: []string{"disk"}, Blob: blob(2*time.Hour, false)},
			{Kind: "layer", Digest: digest.FromString("base"), Size: 28_234_911, Where: []string{"disk"}, Blob: blob(2*time.Hour, false)},
			{Kind: "layer", Digest: digest.FromString("middle"), Size: 4_620_009, Where: []string{"disk"}, Shared: true, Blob: blob(26*time.Hour, false)},
			{Kind: "layer", Digest: digest.FromString("data"), Size: 61_200_118, Where: []string{}},
		},
	}
}

func demoQueue(now time.Time) api.Queued {
	return api.Queued{Pushes: []api.QueuedPush{
		{ID: 8121, State: "failed", Upstream: "ecr", Repository: "web/storefront", Reference: "release-117", User: "ci", Bytes: 310_000_000, Accepted: now.Add(-3 * time.Hour), Attempts: 6, Error: "403 Forbidden: ecr:PutImage is not allowed for this role"},
		{ID: 8190, State: "waiting", Upstream: "ecr", Repository: "ml/embedding-worker", Reference: "2026.03.01-cuda12", User: "ci", Bytes: 7_900_000_000, Accepted: now.Add(-50 * time.Second), Attempts: 1, Next: now.Add(20 * time.Second), Error: "429 Too Many Requests"},
		{ID: 8194, State: "forwarding", Upstream: "ecr", Repository: "payments/checkout-api", Reference: "main-4f1c2ab", User: "ci", Bytes: 184_000_000, Accepted: now.Add(-4 * time.Second), Attempts: 1},
	}}
}

func demoSavings(now time.Time) api.Savings {
	nat, hub := 0.048, 0.09
	saved, more := 412_000.0, 98_000.0
	return api.Savings{
		From: now.Add(-30 * 24 * time.Hour), To: now, Days: 30, Region: "eu-west-1", PricesOf: "2026-02", AvoidedUSD: 361.44, CostUSD: 118.2, NetUSD: 243.24,
		Unknown: []string{"the path to quay.io: set upstreams[2].savings.path to nat, endpoint, internet or region"},
		Upstreams: []api.UpstreamSavings{
			{Upstream: "docker.io", Path: "internet", SentBytes: 2_900_000_000_000, FetchedBytes: 190_000_000_000, AvoidedBytes: 2_710_000_000_000, PriceUSD: &hub, AvoidedUSD: 227.15, Samples: 4100, SavedSeconds: &saved},
			{Upstream: "ecr", Path: "nat", SentBytes: 3_204_000_000_000, FetchedBytes: 199_000_000_000, AvoidedBytes: 3_005_000_000_000, PriceUSD: &nat, AvoidedUSD: 134.29, Samples: 9020, SavedSeconds: &more},
			{Upstream: "quay.io", SentBytes: 120_000_000_000, FetchedBytes: 16_000_000_000, AvoidedBytes: 104_000_000_000, Samples: 7},
		},
		Costs: []api.SavingsCost{{Name: "own_cost", Quantity: 1, Unit: "months", PriceUSD: 110, USD: 110}, {Name: "between zones", Quantity: 410, Unit: "GiB", PriceUSD: 0.02, USD: 8.2}},
	}
}

func demoFleet(now time.Time) api.Fleet {
	return api.Fleet{Members: []api.FleetMember{
		{ID: "a", Address: "10.20.0.11:7000", Zone: "eu-west-1a", Version: "v0.9.0", Protocol: 2, Asked: true, State: &api.FleetState{Started: now.Add(-9 * 24 * time.Hour), Leases: 4, Followers: 2, Bytes: api.FleetBytes{Upstreams: 310e9, Bucket: 90e9, SameZone: 12e9, OtherZones: 40e9, Sent: 88e9}, Reading: []api.FleetStream{}}},
		{ID: "b", Address: "10.20.0.12:7000", Zone: "eu-west-1b", Version: "v0.9.0", Protocol: 2, State: &api.FleetState{Started: now.Add(-9 * 24 * time.Hour), Leases: 1, Bytes: api.FleetBytes{Upstreams: 120e9, Bucket: 300e9, SameZone: 40e9, OtherZones: 61e9, Sent: 20e9}, Reading: []api.FleetStream{{Digest: digest.FromString("layer"), From: "a", Bytes: 214_000_000, Hop: 1}}}},
		{ID: "c", Address: "10.20.0.13:7000", Zone: "eu-west-1c", Version: "v0.8.4", Protocol: 2, Drift: []string{"quay.io"}, State: &api.FleetState{Started: now.Add(-31 * 24 * time.Hour), Bytes: api.FleetBytes{Upstreams: 44e9, Bucket: 12e9, OtherZones: 200e9}, Reading: []api.FleetStream{{Digest: digest.FromString("layer"), From: "a", Bytes: 190_000_000, Hop: 1}}}},
		{ID: "d", Address: "10.20.0.14:7000", Zone: "eu-west-1a", Version: "v0.9.0", Protocol: 2, Failure: "it did not answer within 500 ms"},
	}}
}

// demoHistory has more traffic by day than by night, and an hour in which dray did not run.
func demoHistory(from, to time.Time, points int) api.History {
	step := to.Sub(from) / time.Duration(points)
	h := api.History{Step: step.Seconds()}
	for at := from.Truncate(step); at.Before(to); at = at.Add(step) {
		i := len(h.Points)
		p := api.HistoryPoint{At: at, Seconds: h.Step, Sent: map[string]int64{}, Stored: 1_290_000_000_000 + int64(i)*2_300_000_000}
		if i == points/3 || i == points/3+1 {
			h.Points = append(h.Points, api.HistoryPoint{At: at})
			continue
		}
		busy := int64(2 + i*7%5)
		if hour := at.Hour(); hour > 6 && hour < 19 {
			busy += int64(9 - (hour-13)*(hour-13)/6 + i*13%6)
		}
		p.Sent["disk"], p.Sent["memory"], p.Sent["flight"], p.Sent["origin"] = busy*6_100_000_000, busy*900_000_000, busy*400_000_000, (2+busy%4)*700_000_000
		p.Hits, p.Misses, p.Requests, p.Fetched = busy*900, 60+busy*40, busy*1100, (2+busy%4)*700_000_000
		h.Points = append(h.Points, p)
	}
	return h
}

const demoConfiguration = `listeners:
  - name: mirror
    address: :443
    upstreams: [docker.io, ghcr.io, quay.io, ecr, build-caches]
    tls: {certificate: /etc/dray/tls.crt, private_key: /etc/dray/tls.key}
upstreams:
  - name: docker.io
    url: https://registry-1.docker.io
    kind: oci
    credentials: {username: platform, password_file: /run/secrets/hub}
  - name: ecr
    url: https://123456789012.dkr.ecr.eu-west-1.amazonaws.com
    kind: ecr
    push: true
    acknowledge: local
cache:
  directory: /var/cache/dray
  max_bytes: 2 TB
metadata:
  redis: {url: "rediss://dray:[redacted]@redis.internal:6379/0"}
`
