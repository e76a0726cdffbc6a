package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

func queueCommand(in Options) *cobra.Command {
	cmd := in.operate(&cobra.Command{
		Use:   "queue",
		Short: "Print the pushes that were acknowledged and are not forwarded yet",
		Long: `queue prints what upstreams with acknowledge: local have still to get: each push with its state, age, attempts and last error. One that failed was refused
by its registry, and stays until it is tried again with success, or dropped.`,
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
		Short: "Try a push again at once",
		Long:  `retry has a push forwarded at once that failed, or waits for its next attempt.`,
		Args:  usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		return change(ctx, o, "queue/retry", id, func(w io.Writer, p api.QueueID) {
			fmt.Fprintf(w, "push %d is tried again\n", p.ID)
		})
	})
}

func (in Options) queueDrop() *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "drop ID",
		Short: "Give a push up",
		Long:  `drop gives a push up: its registry does not get it, although the client was told that it would. An attempt under way is interrupted. What it brought along can then be evicted.`,
		Args:  usage.Between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		return change(ctx, o, "queue/drop", id, func(w io.Writer, p api.QueuedPush) {
			fmt.Fprintf(w, "push %d of %s to %s is dropped\n", p.ID, pushName(p), p.Upstream)
		})
	})
}

func pushID(arg string) (api.QueueID, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return api.QueueID{}, fmt.Errorf("%q is no number of a push: dray queue prints them; %w", arg, usage.Err)
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
		fmt.Fprintln(w, "nothing waits")
		return
	}
	fmt.Fprintln(w, "ID\tSTATE\tAGE\tATTEMPTS\tSIZE\tUPSTREAM\tIMAGE\tERROR")
	for _, p := range q.Pushes {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			p.ID, p.State, time.Since(p.Accepted).Round(time.Second), p.Attempts, size(p.Bytes), p.Upstream, pushName(p), cmp.Or(p.Error, "-"))
	}
}
