package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"dray/mirror/queue"

	"github.com/spf13/cobra"
)

// Queued is what was acknowledged to clients and is not at its registry.
type Queued struct {
	Pushes []QueuedPush `json:"pushes"`
}

// QueuedPush is one push, in the order in which they were acknowledged.
type QueuedPush struct {
	ID         uint64 `json:"id"`
	State      string `json:"state"` // waiting, forwarding or failed
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	Digest     string `json:"digest"`
	User       string `json:"user,omitempty"`
	// Bytes of the manifest and of what it brings along.
	Bytes    int64     `json:"bytes"`
	Accepted time.Time `json:"accepted"`
	Attempts int       `json:"attempts"`
	// Next is when it is tried again, where it was tried.
	Next time.Time `json:"next,omitzero"`
	// Error of the last attempt, or the last failure within the attempt that is under way.
	Error string `json:"error,omitempty"`
	// Overtaken says that the tag was pushed again since: it cannot be tried again.
	Overtaken bool `json:"overtaken,omitempty"`
}

func queuedPush(e queue.Entry) QueuedPush {
	return QueuedPush{
		ID: e.ID, State: string(e.State), Upstream: e.Upstream, Repository: e.Repository, Reference: e.Reference, Digest: e.Digest.String(), User: e.User,
		Bytes: e.Bytes(), Accepted: e.Accepted, Attempts: e.Attempts, Next: e.Next, Error: e.Error, Overtaken: e.Overtaken,
	}
}

func queuedOf(entries []queue.Entry) Queued {
	q := Queued{Pushes: make([]QueuedPush, len(entries))}
	for i, e := range entries {
		q.Pushes[i] = queuedPush(e)
	}
	return q
}

// queueID names a push to the API.
type queueID struct {
	ID uint64 `json:"id"`
}

func queueCommand(in *invocation) *cobra.Command {
	cmd := in.operate(&cobra.Command{
		Use:   "queue",
		Short: "Print the pushes that were acknowledged and are not forwarded yet",
		Long: `queue prints what upstreams with acknowledge: local have still to get: each push with its state, age, attempts and last error. One that failed was refused
by its registry, and stays until it is tried again with success, or dropped.`,
		Args: noArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		var q Queued
		if err := o.get(ctx, "queue", nil, &q); err != nil {
			return err
		}
		return o.print(q, q.table)
	})
	cmd.AddCommand(in.queueRetry(), in.queueDrop())
	return cmd
}

func (in *invocation) queueRetry() *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "retry ID",
		Short: "Try a push again at once",
		Long:  `retry has a push forwarded at once that failed, or waits for its next attempt.`,
		Args:  between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		var answer queueID
		if err := o.change(ctx, "queue/retry", id, &answer); err != nil {
			return err
		}
		return o.print(answer, func(w io.Writer) { fmt.Fprintf(w, "push %d is tried again\n", answer.ID) })
	})
}

func (in *invocation) queueDrop() *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "drop ID",
		Short: "Give a push up",
		Long:  `drop gives a push up: its registry does not get it, although the client was told that it would. An attempt under way is interrupted. What it brought along can then be evicted.`,
		Args:  between(1, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		id, err := pushID(args[0])
		if err != nil {
			return err
		}
		var gone QueuedPush
		if err := o.change(ctx, "queue/drop", id, &gone); err != nil {
			return err
		}
		return o.print(gone, func(w io.Writer) {
			fmt.Fprintf(w, "push %d of %s to %s is dropped\n", gone.ID, gone.name(), gone.Upstream)
		})
	})
}

func pushID(arg string) (queueID, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return queueID{}, fmt.Errorf("%q is no number of a push: dray queue prints them; %w", arg, errUsage)
	}
	return queueID{n}, nil
}

func (p QueuedPush) name() string {
	if p.Reference == p.Digest {
		return p.Repository + "@" + p.Digest
	}
	return p.Repository + ":" + p.Reference
}

func (q Queued) table(w io.Writer) {
	if len(q.Pushes) == 0 {
		fmt.Fprintln(w, "nothing waits")
		return
	}
	fmt.Fprintln(w, "ID\tSTATE\tAGE\tATTEMPTS\tSIZE\tUPSTREAM\tIMAGE\tERROR")
	for _, p := range q.Pushes {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			p.ID, p.State, time.Since(p.Accepted).Round(time.Second), p.Attempts, size(p.Bytes), p.Upstream, p.name(), cmp.Or(p.Error, "-"))
	}
}
