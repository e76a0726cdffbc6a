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
		Short: "Protect an image from eviction, or list the pins",
		Long: `pin protects an image, and everything that its manifest refers to, from eviction
until you run dray unpin. The pin survives restarts. Write NAME as clients write
it. If NAME has a tag, the pin protects the image that the tag points to now, even
if the tag moves later.

pin fetches nothing. It lists the content that is not in the cache, and protects
it as soon as a client has requested it. Without an argument, pin lists the pins.`,
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
				fmt.Fprintf(w, "%s\tnot in the cache; protected once it is\t\n", oci.Short(d))
			}
		})
	})
}

func unpinCommand(in Options) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "unpin NAME|DIGEST",
		Short: "Remove a pin",
		Long: `unpin removes a pin. Use the name that dray pin prints, or any other name of the
image. The image stays in the cache until it is evicted.`,
		Args: usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		return change(ctx, o, "unpin", api.NameRequest{Name: args[0]}, func(w io.Writer, p api.NameRequest) {
			fmt.Fprintf(w, "%s\tunpinned\n", p.Name)
		})
	})
}
