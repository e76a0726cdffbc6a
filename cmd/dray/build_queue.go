package main

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"dray/cmd/dray/config"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/queue"
)

// buildQueue opens the queue of pushes if an upstream acknowledges locally. It also opens a queue
// that an earlier run left, because dray must forward the pushes that it has acknowledged, even if
// the configuration has changed.
func (g *graph) buildQueue(ctx context.Context) error {
	directory := directoriesOf(g.cfg).Queue()
	wanted := slices.ContainsFunc(g.cfg.Upstreams, func(u config.Upstream) bool { return u.Acknowledge == config.AcknowledgeLocal })
	if _, err := os.Stat(directory); errors.Is(err, fs.ErrNotExist) && !wanted {
		g.queue = queue.Empty()
		return nil
	}
	var err error
	g.queue, err = queue.Open(ctx, queue.Options{
		Directory: directory, Hold: g.cache.Retain, MaxEntries: g.cfg.Queue.MaxPushes, MaxBytes: int64(g.cfg.Queue.MaxBytes),
		Old: g.cfg.Queue.ReportAfter.Std(), Logger: g.log,
	})
	if err != nil {
		return err
	}
	g.register(g.queue.Collectors())
	g.background["queue"] = func(ctx context.Context) error { return g.queue.Run(ctx, g.mirror.Forward) }
	return nil
}

func (g *graph) queueAPI() []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("queue", func(context.Context, url.Values) (api.Queued, error) { return queuedOf(g.queue.List()), nil }),
		admin.Change("queue/retry", func(ctx context.Context, q api.QueueID) (api.QueueID, error) {
			return q, queueError(g.queue.Retry(ctx, q.ID))
		}),
		admin.Change("queue/drop", func(ctx context.Context, q api.QueueID) (api.QueuedPush, error) {
			ctx, cancel := context.WithTimeout(ctx, dropTimeout)
			defer cancel()
			e, err := g.queue.Drop(ctx, q.ID)
			return queuedPush(e), queueError(err)
		}),
	}
}

// dropTimeout bounds the time of a request to drop a push. If dray is forwarding that push, the
// request waits until the attempt has ended, and interrupts it after a moment.
const dropTimeout = 10 * time.Second

// queueError gives an error of the queue its code in the API, such as api.CodeNotFound.
func queueError(err error) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return api.Errorf(api.CodeNotFound, "%v", err)
	case errors.Is(err, queue.ErrBusy):
		return api.Errorf(api.CodeConflict, "%v; try again", err)
	case errors.Is(err, queue.ErrOvertaken):
		return api.Errorf(api.CodeConflict, "%v", err)
	}
	return err
}

func queuedPush(e queue.Entry) api.QueuedPush {
	return api.QueuedPush{
		ID: e.ID, State: string(e.State), Upstream: e.Upstream, Repository: e.Repository, Reference: e.Reference, Digest: e.Digest.String(), User: e.User,
		Bytes: e.Bytes(), Accepted: e.Accepted, Attempts: e.Attempts, Next: e.Next, Error: e.Error, Overtaken: e.Overtaken,
	}
}

func queuedOf(entries []queue.Entry) api.Queued {
	q := api.Queued{Pushes: make([]api.QueuedPush, len(entries))}
	for i, e := range entries {
		q.Pushes[i] = queuedPush(e)
	}
	return q
}
