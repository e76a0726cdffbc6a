package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// bufferSize is the size of one read from an origin, in bytes. The page cache stores writes of this
// size in large units (folios), which cost less work for each byte.
const bufferSize = 256 << 10

// resources are shared by all parts of a cache.
type resources struct {
	disk    *disk.Dir
	trouble trouble
	log     *slog.Logger
	m       *metrics
	buffers sync.Pool // of *[]byte with bufferSize bytes
}

// [resources.degraded] counts and logs a failure that a pull survives.
func (r *resources) degraded(e *localError, d digest.Digest) {
	r.trouble.note(e)
	r.m.degraded.WithLabelValues(e.reason).Inc()
	r.log.Warn("blob passed through uncached", "digest", d, "error", e)
}

// [resources.unreadable] drops a blob if readErr, the error of a read, means that the blob's file
// is damaged. The next caller then fetches the blob again. A blob that a push needs may stay; see
// [disk.Dir.DiscardUnreadable].
func (r *resources) unreadable(ctx context.Context, d digest.Digest, readErr error) {
	if !disk.Damaged(readErr) {
		return
	}
	if err := r.disk.DiscardUnreadable(ctx, d, readErr); err != nil && !errors.Is(err, ErrNotFound) {
		r.log.Warn("cannot drop blob", "digest", d, "error", err)
	}
}
