package cache

import (
	"context"
	"fmt"
	"time"

	"dray/cache/disk"
)

// Resumable is what an earlier process left under a key: an upload that can be continued, or the
// blob that an upload became when it was committed.
type Resumable struct {
	Key  string
	Note []byte
	// Since is when the upload was last written to, or committed.
	Since time.Time
	// Upload is not committed yet. It is nil if Blob is set.
	Upload *Upload
	Blob   *ResumableBlob
}

// Close drops the upload, or stops keeping the blob.
func (k Resumable) Close() error {
	if k.Upload != nil {
		return k.Upload.Close()
	}
	return k.Blob.Close()
}

// ReceiveResumable is Receive for an upload that outlives the process: the next process gets it
// from Recover, with its note, whether this process ends orderly or not. See
// [disk.Dir.CreateResumable] about the key.
func (c *Cache) ReceiveResumable(ctx context.Context, key string, note []byte) (*Upload, error) {
	in, err := c.disk.CreateResumable(ctx, key, note)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return c.upload(key, in), nil
}

// Recover returns what earlier processes left under keys. Only the first call returns it.
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

// ResumableBlob is the blob of an earlier process's upload. It is not evicted before Close.
type ResumableBlob struct {
	Blob
	key  string
	disk *disk.Dir
}

// Close stops keeping the blob.
func (b *ResumableBlob) Close() error { return b.disk.Forget(b.key) }

// Suspend leaves the blob to the next process, which keeps it, too.
func (b *ResumableBlob) Suspend() error { return nil }

// Suspend ends the use of an upload by this process. If the upload has a key, it is left to the
// next process, whether it is committed or not. Otherwise it is closed. Followers of an upload
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
