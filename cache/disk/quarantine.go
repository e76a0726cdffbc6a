package disk

import (
	"cmp"
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

// quarantine moves the file of a pinned entry whose bytes are wrong to where operators can look at it and no reader does.
// Who has it open reads on. One that is larger than all that is kept there is removed.
func (d *Dir) quarantine(ctx context.Context, e *entry) error {
	if err := d.takeName(ctx, e.digest()); err != nil {
		return err
	}
	name, err := blobPath(e.digest())
	to := "quarantine/" + path.Base(name)
	d.mu.Lock()
	if e.gone {
		d.yieldName(e.digest())
		d.mu.Unlock()
		return nil
	}
	d.suspect(e) // if it cannot be moved nor removed
	d.mu.Unlock()
	if err == nil && e.blocks() <= d.quarantineLimit() {
		err = d.fault(OpUnlink, name)
		if err == nil {
			err = d.root.Rename(name, to)
		}
	} else {
		err = cmp.Or(err, ErrTooLarge)
	}
	if err != nil {
		d.log.Warn("corrupt blob is not kept aside", "digest", e.digest(), "error", err)
		d.mu.Lock()
		d.doom(e)
		d.mu.Unlock()
		d.sweep()
		return nil
	}
	d.mu.Lock()
	d.forget(e)
	e.unlinked.Store(true) // what is open counts until it is closed; the rest is counted by trim
	d.yieldName(e.digest())
	d.mu.Unlock()
	now := time.Now()
	d.aside <- struct{}{}
	defer func() { <-d.aside }()
	return errors.Join(d.root.Chtimes(to, now, now), d.trimQuarantine())
}

// suspect makes an entry one that is never served again unverified. Needs mu.
func (d *Dir) suspect(e *entry) {
	e.suspect = true
	d.suspects[e] = struct{}{}
}

func (d *Dir) quarantineLimit() int64 {
	if d.opts.MaxBytes == 0 {
		return quarantineBytes
	}
	return d.opts.MaxBytes / 100 * quarantinePercent
}

// trimQuarantine removes what is too much, the oldest first, and counts the rest.
func (d *Dir) trimQuarantine() error {
	files, err := fs.ReadDir(d.root.FS(), "quarantine")
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
		if n := blocks(info.Size()); i < quarantineFiles && sum+n <= d.quarantineLimit() {
			sum += n
			continue
		}
		err = errors.Join(err, d.root.Remove("quarantine/"+info.Name()))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used += sum - d.quarantined
	d.quarantined = sum
	return err
}
