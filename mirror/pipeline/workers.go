package pipeline

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Workers bound the number of layers that are scanned at a time. A layer that waits for bytes of
// its client does not count, so slow clients do not delay the layers of other clients.
type Workers struct {
	slots chan struct{}
	// windows bounds the number of decoders with a large window; see [Workers.wide].
	windows chan struct{}
}

// NewWorkers returns Workers that allow n layers at a time, and at least 1.
func NewWorkers(n int) *Workers {
	return &Workers{slots: make(chan struct{}, max(1, n)), windows: make(chan struct{}, max(1, n))}
}

// smallWindow is the largest window of zstd, in bytes, for which a decoder needs no slot in
// Workers.windows; see [Workers.wide]. The tools that build layers compress with windows of at most
// 8 MiB by default, and 32 MiB at their highest level.
const smallWindow = 32 << 20

// wide waits for a slot for a decoder with a large window. The number of these slots is bounded,
// because a window stays in memory until the client, which may be slow, has sent its layer. While
// wide waits, the layer gives up its own slot in w.slots, so that other layers are scanned. The
// caller must call release() after it has used the decoder.
func (w *Workers) wide(ctx context.Context) (release func(), err error) {
	<-w.slots
	defer func() { w.slots <- struct{}{} }()
	select {
	case w.windows <- struct{}{}:
		return func() { <-w.windows }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// unzstd returns a reader of a layer that is compressed with zstd.
func (w *walker) unzstd(b *bufio.Reader) (io.ReadCloser, error) {
	window, release := min(w.limits.MaxWindow, smallWindow), func() {}
	if w.limits.MaxWindow > smallWindow && windowOf(b) > smallWindow && w.workers != nil {
		var err error
		if release, err = w.workers.wide(w.ctx); err != nil {
			return nil, err
		}
		window = w.limits.MaxWindow
	}
	d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		release()
		return nil, err
	}
	return &windowReader{d, window, window < w.limits.MaxWindow, release}, nil
}

// windowOf returns the size in bytes of the window of the first frame with content. If the header
// of this frame is invalid or not within the buffer, the size is unknown: windowOf returns a very
// large number, so that the caller treats the window as a large one.
func windowOf(b *bufio.Reader) uint64 {
	const unknown = 1 << 62
	for at := 0; ; {
		head, _ := b.Peek(min(at+zstd.HeaderMaxSize, b.Size())) // a read that fails here fails again later
		var h zstd.Header
		if len(head) <= at || h.Decode(head[at:]) != nil {
			return unknown
		}
		switch {
		case h.Skippable:
			at += h.HeaderSize + int(h.SkippableSize)
			continue
		case h.SingleSegment:
			return h.FrameContentSize
		}
		return h.WindowSize
	}
}

// windowReader reads a layer that is compressed with zstd. The advice for a layer that cannot be
// read is to build it again. For a layer whose window is too large, that would not help, so Read
// returns a fault with other advice.
type windowReader struct {
	decoder *zstd.Decoder
	window  int64
	// firstSmall reports whether the window of the first frame is small. If firstSmall is true, a
	// window that is too large belongs to a later frame.
	firstSmall bool
	release    func()
}

func (r *windowReader) Read(p []byte) (int, error) {
	n, err := r.decoder.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		f := exceeds("window", "", "the layer is compressed with zstd in a window of more than %d bytes", r.window).(*layerFault)
		f.fix = "compress it without --long and --ultra, or ask the operator of dray to raise archive.max_window"
		if r.firstSmall {
			f.fix = "compress it as one frame, because only the first frame may have a larger window"
		}
		err = f
	}
	return n, err
}

func (r *windowReader) Close() error {
	r.decoder.Close()
	r.release()
	return nil
}
