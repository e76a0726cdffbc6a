package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
)

// bufferSize of one read from an origin: pieces of this size end up in large folios of the page
// cache.
const bufferSize = 256 << 10

// resources are shared by all parts of a cache.
type resources struct {
	disk    *disk.Dir
	log     *slog.Logger
	m       *metrics
	buffers sync.Pool // of *[]byte with bufferSize bytes
}

// degraded counts and logs a failure that a pull survives.
func (r *resources) degraded(e *localError, d digest.Digest) {
	r.m.degraded.WithLabelValues(e.reason).Inc()
	r.log.Warn("blob passed through uncached", "digest", d, "error", e)
}

// unreadable drops a blob whose file is damaged for good by the look of the error, so that it is
// fetched and kept anew. A blob that a push needs stays: the error may pass.
func (r *resources) unreadable(ctx context.Context, d digest.Digest, why error) {
	if !disk.Damaged(why) {
		return
	}
	if err := r.disk.DiscardUnreadable(ctx, d, why); err != nil && !errors.Is(err, ErrNotFound) {
		r.log.Warn("cannot drop blob", "digest", d, "error", err)
	}
}
