package repository

import (
	"slices"
	"sync"
	"time"
)

// Staged is a blob that a client has pushed. Its bytes are here. The upstream gets them before it
// gets the manifest that names the blob.
type Staged struct {
	// Size is in bytes.
	Size int64
	// Owner is the client whose quota the blob counts against.
	Owner string
	// Forward is the transfer of the blob to the upstream, which package push runs.
	Forward Forward
	// Blob retains the bytes until it is closed.
	Blob Retained
	// Since is when the blob was staged, or when [Staging.Renew] or [Staging.Progress] last renewed
	// it.
	Since time.Time
	// queued is set if the queue also holds the blob. While the blob is in the table, Staging.mu
	// guards queued.
	queued bool
}

// Forward is the transfer of a staged blob to the upstream.
type Forward interface {
	// Done is closed when the upstream has the blob, or will not get it.
	Done() <-chan struct{}
	// Err returns why the upstream will not get the blob, or nil. It is valid only after Done is
	// closed.
	Err() error
	// Sent returns the number of bytes that the newest attempt has sent to the upstream.
	Sent() int64
}

// Retained keeps the bytes of a pushed blob from being evicted. It is a *cache.Upload, or a
// *cache.ResumableBlob that a former process left.
type Retained interface {
	// Close allows the bytes to be evicted.
	Close() error
	// Suspend ends the use of the bytes by this process, and keeps them for the next process.
	Suspend() error
}

// Staging is the table of the staged blobs: blobs of pushes whose manifest has not been forwarded
// yet.
type Staging struct {
	expiry time.Duration
	refund func(owner string, bytes int64)
	mu     sync.Mutex // guards blobs; not held while a blob is closed
	blobs  map[Key]*Staged
}

// NewStaging returns an empty table. expiry is the time after which a blob expires. This time
// begins again when a manifest that needs the blob arrives, or when the blob's client sends
// something to the repository. refund is called when a blob no longer counts against the quota of
// its owner.
func NewStaging(expiry time.Duration, refund func(owner string, bytes int64)) *Staging {
	return &Staging{expiry: expiry, refund: refund, blobs: map[Key]*Staged{}}
}

// Get returns the staged blob with a key, or nil.
func (s *Staging) Get(k Key) *Staged {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[k]
}

// Repositories calls visit with the repository of each staged blob.
func (s *Staging) Repositories(visit func(Repo)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.blobs {
		visit(k.Repo)
	}
}

// Len returns the number of staged blobs.
func (s *Staging) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.blobs)
}

// Set stages a blob that already counts against the quota of its owner. It replaces and releases a
// blob of the same key.
func (s *Staging) Set(k Key, b *Staged) {
	if b.Since.IsZero() {
		b.Since = time.Now()
	}
	s.mu.Lock()
	old := s.blobs[k]
	s.blobs[k] = b
	s.mu.Unlock()
	if old != nil {
		s.release(old)
	}
}

// release closes a blob that has left the table, and refunds its bytes unless the queue took the
// blob.
func (s *Staging) release(b *Staged) {
	_ = b.Blob.Close()
	if !b.queued {
		s.refund(b.Owner, b.Size)
	}
}

// Queued marks blobs that the queue now also holds. They no longer count against a quota.
func (s *Staging) Queued(keys ...Key) {
	s.mu.Lock()
	var over []*Staged
	for _, k := range keys {
		if b := s.blobs[k]; b != nil && !b.queued {
			b.queued = true
			over = append(over, b)
		}
	}
	s.mu.Unlock()
	for _, b := range over {
		s.refund(b.Owner, b.Size)
	}
}

// Drop releases the blobs of a push that has been forwarded.
func (s *Staging) Drop(keys ...Key) {
	s.dropIf(s.release, func(k Key, _ *Staged) bool { return slices.Contains(keys, k) })
}

// Expire releases the blobs that have expired.
func (s *Staging) Expire(now time.Time) {
	s.dropIf(s.release, func(_ Key, b *Staged) bool { return now.Sub(b.Since) >= s.expiry })
}

// Renew restarts the expiry of blobs, because a manifest that needs them has arrived.
func (s *Staging) Renew(keys ...Key) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if b := s.blobs[k]; b != nil {
			b.Since = now
		}
	}
}

// Progress restarts the expiry of the blobs that a client has pushed to a repository. lastProgress
// is the last time at which a push of that client to the repository made progress. Without
// Progress, the first layers of a push could expire while its last layer is still being sent.
func (s *Staging) Progress(r Repo, owner string, lastProgress time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, b := range s.blobs {
		if Same(k.Repo, r) && b.Owner == owner && b.Since.Before(lastProgress) {
			b.Since = lastProgress
		}
	}
}

// SuspendAll empties the table, and keeps every blob for the next process.
func (s *Staging) SuspendAll() {
	s.dropIf(func(b *Staged) { _ = b.Blob.Suspend() }, func(Key, *Staged) bool { return true })
}

func (s *Staging) dropIf(release func(*Staged), gone func(Key, *Staged) bool) {
	var drop []*Staged
	s.mu.Lock()
	for k, b := range s.blobs {
		if gone(k, b) {
			drop = append(drop, b)
			delete(s.blobs, k)
		}
	}
	s.mu.Unlock()
	for _, b := range drop {
		release(b)
	}
}
