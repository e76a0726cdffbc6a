package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/top"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

func queueCommand(in Options) *cobra.Command {
	cmd := in.operate(&cobra.Command{
		Use:   "queue",
		Short: "Print the pushes that are acknowledged but not forwarded yet",
		Long: `queue prints the pushes that dray has acknowledged (acknowledge: local) and not
forwarded yet: their state, age, attempts and last error.

If the state of a push is "failed", its registry refused it. The push stays in the
queue until you retry it successfully or drop it.`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		return show(ctx, o, "queue", nil, queueTable)
	})
	cmd.AddCommand(in.queueRetry(), in.queueDrop())
	return cmd
}

func (in Options) queueRetry() *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "retry ID",
		Short: "Retry a queued push now",
		Long: `retry starts an attempt to forward a push at once, whether the push failed or waits
for its next attempt.`,
		Args: usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		return change(ctx, o, "queue/retry", id, func(w io.Writer, p api.QueueID) {
			fmt.Fprintf(w, "retrying push %d\n", p.ID)
		})
	})
}

func (in Options) queueDrop() *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "drop ID",
		Short: "Drop a queued push",
		Long: `drop removes a push from the queue, and cancels an attempt in progress. The registry
never gets the image, although dray has acknowledged the push to the client. dray
can then evict the blobs of the push.`,
		Args: usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		return change(ctx, o, "queue/drop", id, func(w io.Writer, p api.QueuedPush) {
			fmt.Fprintf(w, "dropped push %d of %s to %s\n", p.ID, pushName(p), p.Upstream)
		})
	})
}

func pushID(arg string) (api.QueueID, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return api.QueueID{}, fmt.Errorf("%q is not the ID of a push; dray queue prints the IDs; %w", arg, usage.Err)
	}
	return api.QueueID{ID: n}, nil
}

func pushName(p api.QueuedPush) string {
	if p.Reference == p.Digest {
		return p.Repository + "@" + p.Digest
	}
	return p.Repository + ":" + p.Reference
}

func queueTable(w io.Writer, q api.Queued) {
	if len(q.Pushes) == 0 {
		fmt.Fprintln(w, "the queue is empty")
		return
	}
	fmt.Fprintln(w, "ID\tSTATE\tAGE\tATTEMPTS\tSIZE\tUPSTREAM\tIMAGE\tERROR")
	for _, p := range q.Pushes {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			p.ID, p.State, time.Since(p.Accepted).Round(time.Second), p.Attempts, size(p.Bytes), p.Upstream, pushName(p), cmp.Or(top.Printable(p.Error), "-"))
	}
}
