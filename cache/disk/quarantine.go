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
	quarantineFiles   = 64      // how many files are kept at most
	quarantineBytes   = 1 << 30 // how many bytes are kept at most if Options.MaxBytes is zero
	quarantinePercent = 1       // if MaxBytes is set: what percentage of it is kept at most
)

// quarantine keeps corrupt blobs in a directory of their own. Operators can look at them there.
// Readers do not look there.
type quarantine struct {
	*resources
	evictor  *evictor
	changing chan struct{} // mutex for trim; capacity 1
}

// put takes a referenced entry whose bytes are wrong or unreadable out of the index, and moves its
// file to quarantine/. Readers that have the file open can read on. A file that is larger than the
// limit of the quarantine, or that cannot be moved, is removed instead.
func (q *quarantine) put(ctx context.Context, e *entry) error {
	if err := q.takeName(ctx, e.digest()); err != nil {
		return err
	}
	name := e.path()
	to := "quarantine/" + path.Base(name)
	q.mu.Lock()
	if e.gone {
		q.freeNameLocked(e.digest())
		q.mu.Unlock()
		return nil
	}
	q.suspect(e) // in case the file can be neither moved nor removed
	q.mu.Unlock()
	err := ErrTooLarge
	if e.blocks() <= q.limit() {
		if err = q.fault(OpUnlink, name); err == nil {
			err = q.root.Rename(name, to)
		}
	}
	if err != nil {
		q.log.Warn("cannot quarantine corrupt blob", "digest", e.digest(), "error", err)
		q.mu.Lock()
		q.drop(e, GoneDamaged)
		q.mu.Unlock()
		q.evictor.unlinkDropped()
		return nil
	}
	q.mu.Lock()
	q.unindex(e)
	q.departed.add(e.prefix(), GoneDamaged)
	// q.used counts e until the last reader closes it. trim adds the moved file to q.used.
	e.unlinked.Store(true)
	q.freeNameLocked(e.digest())
	q.mu.Unlock()
	q.evictor.closeIdle(e)
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

// trim goes through the files from the newest to the oldest. It removes each file that does not fit
// into the limits beside the newer files, and counts the blocks of the remaining files.
func (q *quarantine) trim() error {
	files, err := fs.ReadDir(q.root.FS(), "quarantine")
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	for _, f := range files {
		if info, err := f.Info(); err == nil { // otherwise the file is gone
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
