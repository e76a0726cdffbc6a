package ctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

func statsCommand(in Options) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "stats",
		Short: "Print what a running dray has saved",
		Long: `stats prints what was sent to clients and what was fetched from upstreams for it since dray was started. The same numbers are in its metrics,
where they can be watched over time.

Blobs, and bytes by upstream, are told apart by where they came from: memory or disk; cache (manifests that were held); origin, fetched for this client; shared, a fetch
that was under way for another client and was joined; direct, passed through because the cache could not take it; stale and updating, old answers that were good enough.
What is fetched ahead of clients, and is whole before one asks, comes from the disk.`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		return show(ctx, o, "stats", nil, statsTable)
	})
}

func statsTable(w io.Writer, s api.Stats) {
	fmt.Fprintf(w, "sent to clients\t%s\t%d requests\n", size(s.SentBytes), s.Requests)
	fmt.Fprintf(w, "fetched from upstreams\t%s\n", size(s.FetchedBytes))
	fmt.Fprintf(w, "saved\t%s\t%.1f %%\n", size(s.SavedBytes), 100*s.SavedRatio)
	fmt.Fprintf(w, "received from clients\t%s\n", size(s.ReceivedBytes))
	for _, from := range slices.Sorted(maps.Keys(s.Opens)) {
		fmt.Fprintf(w, "blobs %s\t%d\n", sourceText(from), s.Opens[from])
	}
	for _, up := range slices.Sorted(maps.Keys(s.Upstreams)) {
		for _, from := range slices.Sorted(maps.Keys(s.Upstreams[up])) {
			if n := s.Upstreams[up][from]; n > 0 { // skip sources of answers without a body
				fmt.Fprintf(w, "%s, %s\t%s\n", up, sourceText(from), size(n))
			}
		}
	}
}

// sourceText describes the source of bytes in words.
func sourceText(source string) string {
	switch source {
	case "flight":
		return "shared, from a fetch under way"
	case "direct":
		return "passed through uncached"
	}
	return "from " + source
}
