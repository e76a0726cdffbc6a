package ctl

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func pinCommand(in Options) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "pin [NAME|DIGEST]",
		Short: "Keep an image from being evicted, or list what is kept",
		Long: `pin keeps an image, with everything that its manifest refers to, from being evicted until dray unpin, over restarts, too. NAME is written
as clients write it, as for dray purge. Nothing is fetched for it: what is not held is named, and is kept as soon as a client has asked for it. A tag is
pinned as what it points to now. Without an argument pin lists the pins.`,
		Args: usage.Between(0, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		if len(args) == 0 {
			return show(ctx, o, "pins", nil, func(w io.Writer, pins api.Items[api.Pin]) {
				fmt.Fprintln(w, "NAME\tSINCE\tHELD\tSIZE\tMISSING")
				for _, p := range pins.Items {
					fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", p.Name, day(p.Since), p.HeldBlobs, size(p.HeldBytes), len(p.Missing))
				}
			})
		}
		return change(ctx, o, "pin", api.NameRequest{Name: args[0]}, func(w io.Writer, p api.Pin) {
			fmt.Fprintf(w, "%s\tpinned: %d blobs\t%s\n", p.Name, p.HeldBlobs, size(p.HeldBytes))
			for _, d := range p.Missing {
				fmt.Fprintf(w, "%s\tnot held; kept once it comes\t\n", oci.Short(d))
			}
		})
	})
}

func unpinCommand(in Options) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "unpin NAME|DIGEST",
		Short: "Let an image be evicted in its turn",
		Long:  "unpin ends a pin, under the name that dray pin lists or any other way to write it. What was kept stays until its turn of eviction.",
		Args:  usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		return change(ctx, o, "unpin", api.NameRequest{Name: args[0]}, func(w io.Writer, p api.NameRequest) {
			fmt.Fprintf(w, "%s\tunpinned\n", p.Name)
		})
	})
}
