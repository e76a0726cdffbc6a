package mirror

import (
	"context"
	"io"
	"sync/atomic"

	"dray/upstream/oci"
)

// counted counts what is read of what open gives, from its start on each time.
func counted(sent *atomic.Int64, open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		sent.Store(0)
		return &counter{r, sent}, nil
	}
}

type counter struct {
	io.ReadCloser
	sent *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sent.Add(int64(n))
	return n, err
}

// percentCopied is how much of an image the upstream has, in percent of its bytes and below 100.
func (m *Mirror) percentCopied(ctx context.Context, up *Upstream, repo string, man *oci.Manifest) int {
	var total, there int64
	for _, c := range m.neededChildren(ctx, up, repo, man) {
		if c.Manifest {
			continue
		}
		total += c.Size
		sent := c.Size
		if p := m.pins.get(pinKey{up.Name, repo, c.Digest}); p != nil && p.forward != nil {
			if _, err := m.known.Get(ctx, up.Name, repo, c.Digest); err != nil {
				sent = min(p.forward.sent.Load(), c.Size)
			}
		}
		there += sent
	}
	if total <= 0 {
		return 0
	}
	return int(min(there*100/total, 99))
}
