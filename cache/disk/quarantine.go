package disk

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"time"
)

const (
	quarantineFiles   = 64      // kept at most
	quarantineBytes   = 1 << 30 // kept at most, in blocks, where there is no quota
	quarantinePercent = 1       // of the quota otherwise
)

// quarantine is where blobs go whose bytes are wrong. Operators can look at them there, and no
// reader does.
type quarantine struct {
	*resources
	room     *evictor
	changing chan struct{} // full while one changes the directory; capacity 1
}

// put moves the file of a referenced entry whose bytes are wrong to quarantine/.
// Who has it open reads on. One that is larger than all that is kept there is removed.
func (q *quarantine) put(ctx context.Context, e *entry) error {
	if err := q.takeName(ctx, e.digest()); err != nil {
		return err
	}
	name := e.path()
	to := "quarantine/" + path.Base(name)
	q.mu.Lock()
	if e.gone {
		q.yieldName(e.digest())
		q.mu.Unlock()
		return nil
	}
	q.suspect(e) // if it cannot be moved nor removed
	q.mu.Unlock()
	err := ErrTooLarge
	if e.blocks() <= q.limit() {
		if err = q.fault(OpUnlink, name); err == nil {
			err = q.root.Rename(name, to)
		}
	}
	if err != nil {
		q.log.Warn("corrupt blob is not kept aside", "digest", e.digest(), "error", err)
		q.mu.Lock()
		q.drop(e)
		q.mu.Unlock()
		q.room.unlinkDropped()
		return nil
	}
	q.mu.Lock()
	q.forget(e)
	e.unlinked.Store(true) // what is open counts until it is closed; the rest is counted by trim
	q.yieldName(e.digest())
	q.mu.Unlock()
	now := time.Now()
	q.changing <- struct{}{}
	defer func() { <-q.changing }()
	return errors.Join(q.root.Chtimes(to, now, now), q.trim())
}

func (q *quarantine) limit() int64 {
	if q.maxBytes == 0 {
		return quarantineBytes
	}
	return q.maxBytes / 100 * quarantinePercent
}

// trim removes what is too much, the oldest first, and counts the rest.
func (q *quarantine) trim() error {
	files, err := fs.ReadDir(q.root.FS(), "quarantine")
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	for _, f := range files {
		if info, err := f.Info(); err == nil { // else it is gone
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var sum int64
	for i, info := range infos {
		if n := blocks(info.Size()); i < quarantineFiles && sum+n <= q.limit() {
			sum += n
			continue
		}
		err = errors.Join(err, q.root.Remove("quarantine/"+info.Name()))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used += sum - q.quarantined
	q.quarantined = sum
	return err
}
