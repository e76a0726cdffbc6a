package cache

import (
	"context"
	"fmt"
	"time"

	"dray/cache/disk"
)

// Resumable is what a former process received under a key: an upload that can be written on, or the
// blob that it became.
type Resumable struct {
	Key  string
	Note []byte
	// Since is when it was last written to, or committed.
	Since time.Time
	// Upload is not committed yet. Nil where there is a Blob.
	Upload *Upload
	Blob   *ResumableBlob
}

// Close drops it.
func (k Resumable) Close() error {
	if k.Upload != nil {
		return k.Upload.Close()
	}
	return k.Blob.Close()
}

// ReceiveResumable is Receive of an upload that outlives the process: the next one gets it by
// Recover, with its note, whether this one ends in order or not. See [disk.Dir.CreateResumable]
// about the key.
func (c *Cache) ReceiveResumable(ctx context.Context, key string, note []byte) (*Upload, error) {
	in, err := c.disk.CreateResumable(ctx, key, note)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return c.upload(key, in), nil
}

// Recover hands over what former processes received under keys, once.
func (c *Cache) Recover() []Resumable {
	var all []Resumable
	for _, l := range c.disk.Recover() {
		k := Resumable{Key: l.Key, Note: l.Note, Since: l.Since}
		if l.Ingest != nil {
			k.Upload = c.upload(l.Key, l.Ingest)
		} else {
			k.Blob = &ResumableBlob{Blob: Blob{Digest: l.Digest, Size: l.Size}, key: l.Key, disk: c.disk}
		}
		all = append(all, k)
	}
	return all
}

// ResumableBlob is a blob of a former process's upload. It is kept from being evicted.
type ResumableBlob struct {
	Blob
	key  string
	disk *disk.Dir
}

// Close ends the keeping.
func (b *ResumableBlob) Close() error { return b.disk.Forget(b.key) }

// Suspend leaves the keeping to the next process.
func (b *ResumableBlob) Suspend() error { return nil }

// Suspend ends the use of an upload by this process. One that was received under a key is left to
// the next process, whether it is committed or not; any other is closed. Followers of an upload
// that is not committed get ErrClosed.
func (u *Upload) Suspend() error {
	if u.key == "" {
		return u.Close()
	}
	u.suspended.Store(true)
	u.file.suspend(u.in.Suspend)
	u.leave()
	return nil
}
