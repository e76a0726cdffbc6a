package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"dray/cache"

	"github.com/spf13/cobra"
)

// Stats is what dray has saved since it was started.
type Stats struct {
	// Bytes of manifests and blobs sent to clients.
	SentBytes int64 `json:"sent_bytes"`
	// Bytes of blobs got from upstreams, those fetched ahead of clients and those fetched twice included.
	FetchedBytes int64 `json:"fetched_bytes"`
	// SentBytes less FetchedBytes: what the upstreams did not have to send. It is negative while more was fetched ahead than was asked for.
	SavedBytes int64 `json:"saved_bytes"`
	// SavedBytes by SentBytes; 0 where nothing was sent.
	SavedRatio float64 `json:"saved_ratio"`
	// Bytes that clients uploaded.
	ReceivedBytes int64 `json:"received_bytes"`
	// Requests of clients for manifests and blobs.
	Requests int64 `json:"requests"`
	// Readers of blobs by where their bytes came from: memory, disk, origin (a fetch for them), flight (a fetch that was under way for
	// another reader; printed as "shared"), direct (passed through uncached). What was fetched ahead of everybody has no reader.
	Opens map[string]int64 `json:"opens"`
	// Bytes sent to clients, by upstream and by where they came from.
	Upstreams map[string]map[string]int64 `json:"upstreams"`
}

func statsCommand(in *invocation) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "stats",
		Short: "Print what a running dray has saved",
		Long: `stats prints what was sent to clients and what was fetched from upstreams for it since dray was started. The same numbers are in its metrics,
where they can be watched over time.

Blobs, and bytes by upstream, are told apart by where they came from: memory or disk; cache (manifests that were held); origin, fetched for this client; shared, a fetch
that was under way for another client and was joined; direct, passed through because the cache could not take it; stale and updating, old answers that were good enough.
What is fetched ahead of clients, and is whole before one asks, comes from the disk.`,
		Args: noArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		var s Stats
		if err := o.get(ctx, "stats", nil, &s); err != nil {
			return err
		}
		return o.print(s, s.table)
	})
}

func (s Stats) table(w io.Writer) {
	fmt.Fprintf(w, "sent to clients\t%s\t%d requests\n", size(s.SentBytes), s.Requests)
	fmt.Fprintf(w, "fetched from upstreams\t%s\n", size(s.FetchedBytes))
	fmt.Fprintf(w, "saved\t%s\t%.1f %%\n", size(s.SavedBytes), 100*s.SavedRatio)
	fmt.Fprintf(w, "received from clients\t%s\n", size(s.ReceivedBytes))
	for _, from := range slices.Sorted(maps.Keys(s.Opens)) {
		fmt.Fprintf(w, "blobs %s\t%d\n", origination(from), s.Opens[from])
	}
	for _, up := range slices.Sorted(maps.Keys(s.Upstreams)) {
		for _, from := range slices.Sorted(maps.Keys(s.Upstreams[up])) {
			if n := s.Upstreams[up][from]; n > 0 { // answers without a body are nothing to tell of
				fmt.Fprintf(w, "%s, %s\t%s\n", up, origination(from), size(n))
			}
		}
	}
}

// origination says in words where bytes came from.
func origination(source string) string {
	switch cache.Source(source) {
	case cache.SourceFlight:
		return "shared, from a fetch under way"
	case cache.SourceDirect:
		return "passed through uncached"
	}
	return "from " + source
}
