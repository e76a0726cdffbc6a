package cache

import (
	"context"
	"fmt"
	"time"

	"dray/cache/disk"
)

// Resumable is an upload that an earlier process left under a key. Either the upload can be
// continued, or it was committed as a blob.
type Resumable struct {
	Key  string
	Note []byte
	// Since is when the upload was last written to, or committed.
	Since time.Time
	// Upload is the upload that can be continued; nil if Blob is set.
	Upload *Upload
	Blob   *ResumableBlob
}

// Close drops the upload, or lets the disk evict the blob.
func (k Resumable) Close() error {
	if k.Upload != nil {
		return k.Upload.Close()
	}
	return k.Blob.Close()
}

// ReceiveResumable is Receive for an upload that outlives the process, even if the process is
// killed. The next process gets the upload and its note from Recover. [disk.Dir.CreateResumable]
// says which keys are valid.
func (c *Cache) ReceiveResumable(ctx context.Context, key string, note []byte) (*Upload, error) {
	in, err := c.disk.CreateResumable(ctx, key, note)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return c.upload(key, in), nil
}

// Recover returns the uploads and blobs of earlier processes. Only the first call returns them.
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

// ResumableBlob is a blob that this process or an earlier one received. The disk does not evict it
// before Close. If Close is not called, Recover returns the blob in the next process.
type ResumableBlob struct {
	Blob
	key  string
	disk *disk.Dir
}

// Close lets the disk evict the blob.
func (b *ResumableBlob) Close() error { return b.disk.Forget(b.key) }

// Suspend does nothing: without Close, Recover returns the blob in the next process.
func (b *ResumableBlob) Suspend() error { return nil }

// Keep ends the use of the upload, which must have a key and be committed as b. The disk does not
// evict b before the result is closed. Unlike the upload, the result has no open file.
func (u *Upload) Keep(b Blob) *ResumableBlob {
	u.disk.Keep(u.key, b.Digest)
	u.suspended.Store(true)
	u.leave()
	return &ResumableBlob{Blob: b, key: u.key, disk: u.disk}
}

// Suspend ends the use of an upload by this process. If the upload has a key, it is left to the
// next process, whether it is committed or not. If it is not committed, the readers that Follow
// returned get ErrClosed. An upload without a key is closed.
func (u *Upload) Suspend() error {
	if u.key == "" {
		return u.Close()
	}
	u.suspended.Store(true)
	u.file.suspend(u.in.Suspend)
	u.leave()
	return nil
}
