package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dray/cache"
	"dray/upstream"

	"golang.org/x/sync/errgroup"
)

// recoveredAtOnce bounds how many blobs of a former process are sent on at a time.
const recoveredAtOnce = 8

// recovered is a blob of a former process that is yet to be sent on.
type recovered struct {
	key pinKey
	pin *pin
}

// recover takes over the uploads and pins of a former process. What has expired meanwhile, or belongs to no upstream any
// more, is dropped.
func (m *Mirror) recover(now time.Time) {
	for _, k := range m.cache.Recover() {
		if err := m.takeOver(k, now); err != nil {
			m.log.Info("upload of a former process dropped", "upload", k.Key, "reason", err)
			_ = k.Close()
		}
	}
}

func (m *Mirror) takeOver(k cache.Kept, now time.Time) error {
	var r receipt
	if err := json.Unmarshal(k.Note, &r); err != nil {
		return fmt.Errorf("its receipt is not understood: %w", err)
	}
	up := m.upstreams[r.Upstream]
	if k.Since.After(now) { // the clock was ahead: it gets its whole time again
		k.Since = now
	}
	switch {
	case up == nil || up.Sink == nil:
		return fmt.Errorf("upstream %q takes no pushes any more", r.Upstream)
	case now.Sub(k.Since) >= m.uploads.expiry:
		return errExpired
	case k.Upload != nil:
		m.shares.restore(r.Owner, 1, k.Upload.Size())
		m.uploads.add(k.Key, up, r, k.Upload, k.Since)
		return nil
	}
	if _, queued := m.queue.Blob(r.Upstream, r.Repository, k.Blob.Digest); queued {
		return errors.New("it waits in the queue of pushes")
	}
	m.shares.restore(r.Owner, 0, k.Blob.Size)
	again := recovered{pinKey{r.Upstream, r.Repository, k.Blob.Digest}, &pin{size: k.Blob.Size, owner: r.Owner, forward: newForward(), blob: k.Blob, since: k.Since}}
	m.pins.set(again.key, again.pin)
	m.recovered = append(m.recovered, again)
	return nil
}

// forwardRecovered sends the blobs of a former process on, without their clients.
func (m *Mirror) forwardRecovered(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(recoveredAtOnce)
	for _, r := range m.recovered {
		g.Go(func() error {
			r.pin.forward.err = m.forwardAgain(ctx, r.key, r.pin.size)
			close(r.pin.forward.done)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
}

func (m *Mirror) forwardAgain(ctx context.Context, k pinKey, size int64) error {
	if _, err := m.known.Get(ctx, k.upstream, k.repo, k.digest); err == nil {
		return nil
	}
	if m.upstreams[k.upstream].gate(k.repo) != nil {
		return errHeldBack // nobody has looked at it in this process
	}
	return m.supply(ctx, upstream.Call{}, m.upstreams[k.upstream], k.repo, k.digest, size)
}
