package ctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

func statsCommand(in Options) *cobra.Command {
	var q savingsQuery
	cmd := in.operate(&cobra.Command{
		Use:   "stats",
		Short: "Print how much traffic to upstreams a running dray has saved",
		Long: `stats prints how many bytes dray has sent to clients since it was started, and how
many bytes it has fetched from upstreams, including bytes that it only passed through
and did not cache. To watch these numbers over time, use the metrics.

The number of blobs, and the bytes sent for each upstream, are listed by source:
  memory, disk     the cache
  cache            manifests in the cache
  origin           fetched for this client
  shared           a fetch in progress for another client
  member, bucket   another member of the fleet, or the bucket
  uncached         passed through, because the cache could not store the content
  stale            expired answers that dray served because the upstream failed
  updating         expired answers that dray served while it asked the upstream
Content that dray prefetched completely before a client requested it counts as disk.

--savings prints the price of the transfers that dray avoided, less the costs of dray,
in US dollars, and the time that clients saved. dray keeps these counts across
restarts, and the first line shows the period. Missing prices and costs count as 0; the
last lines name the keys to set. See docs/savings.md.`,
		Example: "  dray stats\n  dray stats --savings --days 7\n  dray stats --savings --csv > savings.csv",
		Args:    usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		if q.savings {
			return q.show(ctx, o)
		}
		if q.csv || q.days != 0 {
			return fmt.Errorf("--csv and --days are for --savings; %w", usage.Err)
		}
		return show(ctx, o, "stats", nil, statsTable)
	})
	q.flags(cmd)
	return cmd
}

func statsTable(w io.Writer, s api.Stats) {
	if !s.Started.IsZero() {
		fmt.Fprintf(w, "since\t%s\n", s.Started.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "sent to clients\t%s\t%d requests\n", size(s.SentBytes), s.Requests)
	fmt.Fprintf(w, "fetched from upstreams\t%s\n", size(s.FetchedBytes))
	fmt.Fprintf(w, "saved\t%s\t%.1f %%\n", size(s.SavedBytes), 100*s.SavedRatio)
	fmt.Fprintf(w, "received from clients\t%s\n", size(s.ReceivedBytes))
	fmt.Fprintf(w, "blobs held\t%.1f %%\n", 100*s.HitRatio)
	for _, from := range slices.Sorted(maps.Keys(s.Opens)) {
		fmt.Fprintf(w, "blobs %s\t%d\n", sourceText(from), s.Opens[from])
	}
	for _, up := range slices.Sorted(maps.Keys(s.Fetched)) {
		fmt.Fprintf(w, "%s, fetched\t%s\n", up, size(s.Fetched[up]))
	}
	for _, up := range slices.Sorted(maps.Keys(s.Upstreams)) {
		for _, from := range slices.Sorted(maps.Keys(s.Upstreams[up])) {
			if n := s.Upstreams[up][from]; n > 0 { // skip a source if none of its answers had a body
				fmt.Fprintf(w, "%s, %s\t%s\n", up, sourceText(from), size(n))
			}
		}
	}
}

// sourceText returns the words for a source of bytes.
func sourceText(source string) string {
	switch source {
	case "flight":
		return "shared"
	case "direct":
		return "uncached"
	}
	return "from " + source
}
