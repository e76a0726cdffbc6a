package ctl

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func evictCommand(in Options) *cobra.Command {
	var dryRun bool
	var bytes string
	cmd := in.operate(&cobra.Command{
		Use:   "evict --dry-run | --bytes N",
		Short: "Say what a running dray evicts next and why, or make it evict",
		Long: `evict --dry-run says which blobs go next, in order, and why: those that nobody asked for since they came, or since dray was started, and
those that were asked for and whose rounds are over: each time that a blob is asked for lets it pass one turn of eviction, up to three turns. What is here is the order if nobody
asked for anything meanwhile; where it names much of the cache, that turns several times, and what is asked for often is named, too, behind the rest. With --bytes it says what goes for so many bytes. Without --dry-run these are evicted now, as if somebody had come with a blob of that size.
What is open or pinned never goes.`,
		Example: "  dray evict --dry-run\n  dray evict --bytes 20GB",
		Args:    usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		var n config.Bytes
		if bytes != "" {
			if err := n.UnmarshalText([]byte(bytes)); err != nil || n <= 0 {
				return fmt.Errorf("--bytes %s: write a size such as 500MB or 20GiB; %w", bytes, usage.Err)
			}
		}
		switch {
		case dryRun && n > 0:
			return show(ctx, o, "eviction", url.Values{"bytes": {strconv.FormatInt(int64(n), 10)}}, victimsTable)
		case dryRun:
			return show(ctx, o, "eviction", url.Values{"most": {"20"}}, victimsTable)
		case n > 0:
			return change(ctx, o, "evict", api.EvictRequest{Bytes: int64(n)}, victimsTable)
		}
		return fmt.Errorf("say --dry-run, or how much to evict with --bytes; %w", usage.Err)
	})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would go: the next 20 blobs, or those of --bytes")
	cmd.Flags().StringVar(&bytes, "bytes", "", "how many bytes to find, such as 20GiB")
	return cmd
}

func victimsTable(w io.Writer, e api.Evicted) {
	var sum int64
	fmt.Fprintln(w, "DIGEST\tSIZE\tLAST USE\tPOOL\tWHY")
	for _, v := range e.Victims {
		why := string(v.Reason)
		switch v.Reason {
		case api.ReasonUnused:
			why = "nobody asked for it since it came, or since the start of dray"
		case api.ReasonCold:
			why = "asked for before, and the rounds for that are over by its turn"
		}
		sum += v.Size
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oci.Short(v.Digest), size(v.Size), day(v.LastUse), v.Pool, why)
	}
	fmt.Fprintf(w, "in all\t%s\n", size(sum))
}
