package ctl

import (
	"context"
	"errors"
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
		Short: "Evict blobs from a running dray, or print which blobs come next and why",
		Long: `evict removes blobs from the cache of a running dray, in the order in which dray
would evict them itself, until it has freed the number of bytes in --bytes.

--dry-run removes nothing. It prints the blobs that dray would evict next, at
most 10,000, each with one of two reasons. The first is that no client has
requested the blob since dray stored it, or since dray was started. The second
is that clients did request the blob, but its rounds of eviction are used up:
eviction spares a blob once for each request, three times at most.

The order assumes that clients request nothing in the meantime. If --bytes is a
large part of the cache, the list also includes blobs that are requested often.
dray never evicts blobs that are open or pinned, or that a push needs.`,
		Example: "  dray evict --dry-run\n  dray evict --bytes 20GB",
		Args:    usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		var n config.Bytes
		if bytes != "" {
			if err := n.UnmarshalText([]byte(bytes)); err != nil || n <= 0 {
				return fmt.Errorf("--bytes %s: not a size; write one like 500MB or 20GiB; %w", bytes, usage.Err)
			}
		}
		switch {
		case dryRun && n > 0:
			return show(ctx, o, "eviction", url.Values{"bytes": {strconv.FormatInt(int64(n), 10)}}, victimsTable)
		case dryRun:
			return show(ctx, o, "eviction", url.Values{"most": {"20"}}, victimsTable)
		case n > 0:
			return o.evict(ctx, int64(n))
		}
		return fmt.Errorf("set --dry-run, or --bytes to the number of bytes to free; %w", usage.Err)
	})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the blobs that would be evicted (default: the next 20), and evict nothing")
	cmd.Flags().StringVar(&bytes, "bytes", "", "number of bytes to free, such as 20GiB")
	return cmd
}

// evict sends requests until n bytes are freed or a request evicts nothing: dray bounds the blobs
// that one request evicts. Then evict prints all evicted blobs, even if the last request failed.
func (o *operator) evict(ctx context.Context, n int64) error {
	all := api.Evicted{Victims: []api.Victim{}, LeftBytes: n}
	var err error
	for all.LeftBytes > 0 {
		var some api.Evicted
		err = o.post(ctx, "evict", api.EvictRequest{Bytes: all.LeftBytes}, &some)
		if err != nil && len(all.Victims) == 0 {
			return err
		}
		if len(some.Victims) == 0 {
			break
		}
		all.Victims, all.LeftBytes = append(all.Victims, some.Victims...), some.LeftBytes
	}
	return errors.Join(err, o.print(all, func(w io.Writer) { victimsTable(w, all) }))
}

func victimsTable(w io.Writer, e api.Evicted) {
	var sum int64
	fmt.Fprintln(w, "DIGEST\tSIZE\tLAST USE\tPOOL\tWHY")
	for _, v := range e.Victims {
		why := string(v.Reason)
		switch v.Reason {
		case api.ReasonUnused:
			why = "not requested since it was stored, or since dray was started"
		case api.ReasonCold:
			why = "requested before, but its rounds of eviction are used up"
		}
		sum += v.Size
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oci.Short(v.Digest), size(v.Size), day(v.LastUse), v.Pool, why)
	}
	fmt.Fprintf(w, "total\t%s\n", size(sum))
	if e.LeftBytes > 0 {
		fmt.Fprintf(w, "not freed\t%s\n", size(e.LeftBytes))
	}
}
