package main

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dray/cmd/dray/config"
	"dray/mirror/admin"
	"dray/mirror/queue"
)

// queueDirectory is where the journal of pushes lies: in the cache directory, beside what may be lost.
func queueDirectory(c config.Config) string { return filepath.Join(c.Cache.Directory, "queue") }

// buildQueue opens the queue of pushes where an upstream wants one, and where there is one of before: what was
// acknowledged is forwarded even if the configuration has changed.
func (g *graph) buildQueue(ctx context.Context) error {
	wanted := slices.ContainsFunc(g.cfg.Upstreams, func(u config.Upstream) bool { return u.Acknowledge == config.AcknowledgeLocal })
	if _, err := os.Stat(queueDirectory(g.cfg)); errors.Is(err, fs.ErrNotExist) && !wanted {
		return nil
	}
	var err error
	g.queue, err = queue.Open(ctx, queue.Options{
		Directory: queueDirectory(g.cfg), Hold: g.cache.Keep, MaxEntries: g.cfg.Queue.MaxPushes, MaxBytes: int64(g.cfg.Queue.MaxBytes),
		Old: g.cfg.Queue.ReportAfter.Std(), Logger: g.log,
	})
	if err != nil {
		return err
	}
	g.register(g.queue.Collectors())
	return nil
}

// runQueue lets the mirror forward what the queue holds.
func (g *graph) runQueue() {
	if g.queue != nil {
		g.background["queue"] = func(ctx context.Context) error { return g.queue.Run(ctx, g.mirror.Forward) }
	}
}

func (g *graph) queueAPI() []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("queue", func(context.Context, url.Values) (Queued, error) { return queuedOf(g.queue.List()), nil }),
		admin.Change("queue/retry", func(ctx context.Context, q queueID) (queueID, error) { return q, queueError(g.queue.Retry(ctx, q.ID)) }),
		admin.Change("queue/drop", func(ctx context.Context, q queueID) (QueuedPush, error) {
			ctx, cancel := context.WithTimeout(ctx, dropWithin)
			defer cancel()
			e, err := g.queue.Drop(ctx, q.ID)
			return queuedPush(e), queueError(err)
		}),
	}
}

// dropWithin is how long an attempt under way may take to end, once it is interrupted for a push to be dropped.
const dropWithin = 10 * time.Second

// queueError tells the API what kind of failure it is.
func queueError(err error) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return admin.Errorf(admin.CodeNotFound, "%v", err)
	case errors.Is(err, queue.ErrBusy):
		return admin.Errorf(admin.CodeConflict, "%v; try again", err)
	case errors.Is(err, queue.ErrOvertaken):
		return admin.Errorf(admin.CodeConflict, "%v", err)
	}
	return err
}
