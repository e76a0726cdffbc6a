package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/opencontainers/go-digest"

	"dray/cache"
)

const (
	// partSize is the size of a part of a large object, in bytes. With this size, a blob of 1 GiB
	// takes 67 requests: 64 for its parts, and 3 to look for the object, to begin and to complete it.
	// A blob that would need more than maxParts parts has larger parts
	// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
	partSize = 16 << 20
	maxParts = 10_000
	// writeTime bounds one request that writes, together with its retries.
	writeTime = 2 * time.Minute
	// maxTries bounds the attempts to write a blob.
	maxTries = 3
	// absentForWrites is how long a write relies on an earlier answer that the bucket does not have
	// the blob. dray asks the bucket before it fetches a blob from an upstream. Most fetches end
	// within this time, so the write after the fetch need not ask the bucket again.
	absentForWrites = time.Minute
)

var (
	// errRotten says that the bytes on disk do not have their digest.
	errRotten = errors.New("the bytes on disk do not have their digest")
	// errLocal says that the blob on disk could not be read.
	errLocal = errors.New("cannot read the blob on disk")
	// errConflict says that another mirror is writing the same object.
	errConflict = errors.New("the object is being written by another mirror")
)

// Keep implements [cache.Tier].
func (b *Bucket) Keep(d digest.Digest, size int64) {
	if at := b.seen.get(d); at.present() && !b.aging(at.written) {
		return
	}
	if !b.queue.add(item{digest: d, size: size}) {
		b.m.dropped.WithLabelValues(droppedFull).Inc()
	}
}

// [Bucket.aging] reports whether an object is so old that it has to be written again before the
// bucket's lifecycle deletes it.
func (b *Bucket) aging(written time.Time) bool {
	return b.o.MaxAge > 0 && time.Since(written) > b.o.MaxAge/4*3
}

// Run writes the blobs that Keep was called for, until ctx ends. It then gives up unfinished
// writes, and returns nil.
func (b *Bucket) Run(ctx context.Context) error {
	var writers sync.WaitGroup
	for range b.o.Writers {
		writers.Go(func() { b.write(ctx) })
	}
	writers.Wait()
	return nil
}

// write writes one blob after another. While the breaker is open, it waits.
func (b *Bucket) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case i := <-b.queue.waiting:
			sent, ok := b.writes.allow()
			for ; !ok; sent, ok = b.writes.allow() {
				if b.writes.wait(ctx); ctx.Err() != nil {
					return
				}
			}
			b.one(ctx, i, sent)
		}
	}
}

// [Bucket.one] writes one blob. sentAt is the time at which the breaker allowed the write. If the
// write fails, the blob goes back into the queue, or is dropped.
func (b *Bucket) one(ctx context.Context, i item, sentAt time.Time) {
	err := b.copy(ctx, i)
	reason := ""
	switch {
	case err == nil, errors.Is(err, errConflict):
		b.writes.done(sentAt, nil)
	case errors.Is(err, cache.ErrNotFound):
		b.writes.done(sentAt, context.Canceled) // nothing was sent
		reason = droppedEvicted
	case errors.Is(err, errRotten):
		b.writes.done(sentAt, context.Canceled)
		reason = droppedRotten
	case errors.Is(err, errLocal):
		b.writes.done(sentAt, context.Canceled)
	case ctx.Err() != nil:
		b.writes.done(sentAt, context.Canceled)
		return
	default:
		b.writes.done(sentAt, err)
	}
	if err != nil {
		b.seen.add(i.digest, sighting{}) // nothing is known now: the write may have succeeded although its answer was lost
	}
	if err == nil || reason != "" {
		b.queue.finished(i.digest)
	} else if i.tries++; i.tries >= maxTries {
		b.queue.finished(i.digest)
		reason = droppedFailed
	} else if !b.queue.again(i) {
		reason = droppedFull
	}
	if reason != "" {
		b.m.dropped.WithLabelValues(reason).Inc()
		b.o.Logger.Debug("blob not written to the bucket", "digest", i.digest, "reason", reason, "error", err)
	}
}

// copy copies a blob from disk to the bucket, unless [Bucket.needed] finds that this is not needed.
func (b *Bucket) copy(ctx context.Context, i item) (err error) {
	opened, err := b.o.Content(i.digest)
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	defer opened.Close()
	content := &observed{Content: opened}
	defer func() {
		if failed := content.failed.Load(); err != nil && failed != nil {
			err = fmt.Errorf("%w: %w", errLocal, *failed)
		}
	}()
	replace, needed, err := b.needed(ctx, i.digest, content.Size())
	if err != nil || !needed {
		return err
	}
	if err := verify(content, i.digest); err != nil {
		return err
	}
	var unless *string
	if !replace {
		unless = aws.String("*")
	}
	if content.Size() <= partSize {
		err = b.put(ctx, i.digest, content, unless)
	} else {
		err = b.putParts(ctx, i.digest, content, unless)
	}
	switch now := (sighting{written: time.Now()}); {
	case err != nil:
	case replace:
		b.seen.set(i.digest, now)
	default:
		b.seen.add(i.digest, now)
	}
	return err
}

// observed records an error of reading a blob, so that copy can distinguish it from an error of the
// bucket.
type observed struct {
	Content
	failed atomic.Pointer[error]
}

// ReadAt implements io.ReaderAt.
func (o *observed) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.Content.ReadAt(p, off)
	if err != nil && err != io.EOF {
		o.failed.Store(&err)
	}
	return n, err
}

// [Bucket.needed] reports whether a blob has to be written, and whether it replaces an object. If
// b.seen has no answer, the method asks the bucket.
func (b *Bucket) needed(ctx context.Context, d digest.Digest, size int64) (replace, needed bool, err error) {
	at := b.seen.get(d)
	switch {
	case at.wrong:
		return true, true, nil
	case !at.absent.IsZero() && time.Since(at.absent) < absentForWrites:
		return false, true, nil
	case !at.present():
		if at.written, err = b.stat(ctx, d); errors.Is(err, cache.ErrNotFound) {
			return false, true, nil
		} else if err != nil {
			return false, false, err
		}
	}
	return true, b.seen.get(d).wrong || b.aging(at.written), nil
}

// verify returns errRotten if the content does not have the digest. So wrong bytes do not reach
// other mirrors.
func verify(content Content, d digest.Digest) error {
	v := d.Verifier()
	if _, err := io.Copy(v, io.NewSectionReader(content, 0, content.Size())); err != nil {
		return err
	}
	if !v.Verified() {
		return errRotten
	}
	return nil
}

// put writes a small object by one request.
func (b *Bucket) put(ctx context.Context, d digest.Digest, content Content, unless *string) error {
	ctx, cancel := within(ctx, writeTime)
	defer cancel()
	in := &s3.PutObjectInput{
		Bucket: &b.o.Bucket, Key: b.o.key(d), IfNoneMatch: unless,
		Body: io.NewSectionReader(content, 0, content.Size()), ContentLength: aws.Int64(content.Size()),
	}
	if b.o.KMSKey != "" {
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = types.ServerSideEncryptionAwsKms, &b.o.KMSKey, aws.Bool(true)
	}
	_, err := b.api.PutObject(ctx, in, repeated)
	return b.written(ctx, d, opPut, content.Size(), err)
}

// [Bucket.written] counts a request that writes n bytes, and returns its error. The error is nil if
// another mirror has already written the object.
func (b *Bucket) written(ctx context.Context, d digest.Digest, op string, n int64, err error) error {
	switch status := statusOf(err); {
	case err == nil:
		b.m.requests.WithLabelValues(op, resultOK).Inc()
		b.m.written.Add(float64(n))
		return nil
	case status == http.StatusPreconditionFailed && (op == opPut || op == opComplete): // only these requests can have If-None-Match
		b.m.requests.WithLabelValues(op, resultExists).Inc()
		return nil
	case status == http.StatusConflict:
		b.m.requests.WithLabelValues(op, resultExists).Inc()
		return errConflict
	}
	return b.failure(ctx, d, op, err)
}

// putParts writes a large object in parts. If it fails, it removes the parts. The bucket's
// lifecycle removes parts that putParts cannot remove.
func (b *Bucket) putParts(ctx context.Context, d digest.Digest, content Content, unless *string) error {
	begin := &s3.CreateMultipartUploadInput{Bucket: &b.o.Bucket, Key: b.o.key(d)}
	if b.o.KMSKey != "" {
		begin.ServerSideEncryption, begin.SSEKMSKeyId, begin.BucketKeyEnabled = types.ServerSideEncryptionAwsKms, &b.o.KMSKey, aws.Bool(true)
	}
	limited, cancel := within(ctx, writeTime)
	made, err := b.api.CreateMultipartUpload(limited, begin, repeated)
	err = b.written(limited, d, opCreate, 0, err)
	cancel()
	if err != nil {
		return err
	}
	if err = b.parts(ctx, d, content, unless, made.UploadId); err == nil {
		return nil
	}
	ctx, cancel = within(context.WithoutCancel(ctx), b.o.Patience)
	defer cancel()
	_, failed := b.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.o.Bucket, Key: b.o.key(d), UploadId: made.UploadId})
	_ = b.written(ctx, d, opAbort, 0, failed) // a failure is only counted, because the lifecycle also removes the parts
	if errors.Is(err, errExists) {
		return nil
	}
	return err
}

// errExists says that another mirror has finished the same object first.
var errExists = errors.New("the object exists")

// [Bucket.parts] sends the parts of a large object, and completes it.
func (b *Bucket) parts(ctx context.Context, d digest.Digest, content Content, unless, upload *string) error {
	size := content.Size()
	step := max(int64(partSize), (size+maxParts-1)/maxParts)
	var done []types.CompletedPart
	for from := int64(0); from < size; from += step {
		n := min(step, size-from)
		tag, err := b.part(ctx, d, io.NewSectionReader(content, from, n), upload, int32(len(done)+1))
		if err != nil {
			return err
		}
		done = append(done, tag)
	}
	ctx, cancel := within(ctx, writeTime)
	defer cancel()
	_, err := b.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.o.Bucket, Key: b.o.key(d), UploadId: upload, IfNoneMatch: unless,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	}, repeated)
	exists := statusOf(err) == http.StatusPreconditionFailed
	if err := b.written(ctx, d, opComplete, 0, err); err != nil {
		return err
	}
	if exists {
		return errExists
	}
	return nil
}

func (b *Bucket) part(ctx context.Context, d digest.Digest, r *io.SectionReader, upload *string, number int32) (types.CompletedPart, error) {
	ctx, cancel := within(ctx, writeTime)
	defer cancel()
	out, err := b.api.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.o.Bucket, Key: b.o.key(d), UploadId: upload, PartNumber: &number, Body: r, ContentLength: aws.Int64(r.Size()),
	}, repeated)
	if err := b.written(ctx, d, opPart, r.Size(), err); err != nil {
		return types.CompletedPart{}, err
	}
	return types.CompletedPart{ETag: out.ETag, PartNumber: &number}, nil
}
