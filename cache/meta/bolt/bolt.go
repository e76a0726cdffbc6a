package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"dray/cache/meta"
)

// Errors of this package.
var (
	// ErrLocked says that another process uses the file.
	ErrLocked = errors.New("file is in use by another process")
	// ErrCorrupt says that the content of the file is damaged.
	ErrCorrupt = errors.New("file is corrupt")
)

// Options configure [Open].
type Options struct {
	// Path of the file. Its directory must exist. The directory may have two more files, with the name
	// of the file and a suffix: ".open" marks the file as in use, and ".corrupt" is the damaged file
	// that was moved aside last.
	Path string
	// LockTimeout is how long to wait for another process to release the file; 0 means 1 second.
	LockTimeout time.Duration
	// SyncEvery is how often Run syncs a file that has changed; 0 means 5 seconds.
	SyncEvery time.Duration
	// ExpireEvery is how often Run removes expired entries; 0 means 1 minute.
	ExpireEvery time.Duration
	// Logger gets a line when a damaged file is moved aside, when Open returns a store whose file it
	// could not open, and when Run fails to sync or to remove entries; nil discards the lines.
	Logger *slog.Logger
}

// Store is a [meta.Store] in a bbolt file. [Store.Run] must run to sync the file and to remove
// expired entries.
type Store struct {
	o Options
	// file is nil until the file has been opened. Only [Store.opened] sets it, under the mutex in the
	// field opening.
	file    atomic.Pointer[file]
	opening chan struct{} // mutex for opening the file: a channel of capacity 1 that is full while it is locked
	closed  bool          // guarded by opening

	dirty     atomic.Bool // written since the last sync
	closeOnce sync.Once
	closeErr  error

	swept prometheus.Counter
	bytes prometheus.GaugeFunc
}

var (
	_ meta.Store   = (*Store)(nil)
	_ meta.Batch   = (*Store)(nil)
	_ meta.Swapper = (*Store)(nil)
)

// facts is the only bucket. Under each key, it has the expiry followed by the value. The expiry has
// 8 bytes: Unix nanoseconds, big endian, or 0 for never.
const (
	facts      = "facts"
	expirySize = 8
)

// seal returns the stored form of a value.
func seal(value []byte, expires int64) []byte {
	sealed := make([]byte, expirySize, expirySize+len(value))
	binary.BigEndian.PutUint64(sealed, uint64(expires))
	return append(sealed, value...)
}

// unseal returns the value if it has not expired. The value must not be used after the transaction.
func unseal(sealed []byte, now int64) ([]byte, bool) {
	if len(sealed) < expirySize || expired(sealed, now) {
		return nil, false
	}
	return sealed[expirySize:], true
}

// [expired] reports whether an entry has expired. It also returns true for an entry without a whole
// expiry, and for an expiry further in the future than [meta.MaxTTL], because the clock that gave
// this expiry was ahead.
func expired(sealed []byte, now int64) bool {
	if len(sealed) < expirySize {
		return true
	}
	at := int64(binary.BigEndian.Uint64(sealed))
	return at != 0 && meta.Expired(time.Unix(0, now), time.Unix(0, at))
}

func expiry(ttl time.Duration) int64 {
	if ttl == 0 {
		return 0
	}
	return time.Now().Add(min(ttl, meta.MaxTTL)).UnixNano()
}

// Open opens or creates the file. It returns ErrLocked if another process uses it. If the file is
// damaged, Open logs a warning and starts with an empty file. If the file cannot be opened now, for
// example because the disk is full, Open logs a warning and returns a store. Each read or write of
// this store tries again to open the file, and returns an error if it cannot.
func Open(o Options) (*Store, error) {
	o.SyncEvery, o.ExpireEvery = cmp.Or(o.SyncEvery, 5*time.Second), cmp.Or(o.ExpireEvery, time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.LockTimeout = cmp.Or(o.LockTimeout, time.Second)
	s := &Store{
		o: o, opening: make(chan struct{}, 1),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_meta_expired_total",
			Help: "Expired facts that dray removed from the metadata file.",
		}),
	}
	if _, err := s.opened(context.Background()); passing(err) {
		o.Logger.Warn("the metadata file cannot be opened now; until it can, dray asks upstreams more often", "error", err)
	} else if err != nil {
		return nil, err
	}
	s.bytes = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_meta_file_bytes",
		Help: "Size of the metadata file in bytes.",
	}, s.size)
	return s, nil
}

// [Store.opened] returns the file. It opens the file if no earlier call has opened it.
func (s *Store) opened(ctx context.Context) (*file, error) {
	if f := s.file.Load(); f != nil {
		return f, nil
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f := s.file.Load(); f != nil {
		return f, nil
	}
	if s.closed {
		return nil, meta.ErrClosed
	}
	f, err := openSound(s.o.Path, s.o.LockTimeout, s.o.Logger)
	if err != nil {
		return nil, fmt.Errorf("open metadata %s: %w", s.o.Path, err)
	}
	s.file.Store(f)
	return f, nil
}

func (s *Store) size() float64 {
	info, err := os.Stat(s.o.Path)
	if err != nil {
		return 0
	}
	return float64(info.Size())
}

// Collectors returns the metrics of the file.
func (s *Store) Collectors() []prometheus.Collector { return []prometheus.Collector{s.swept, s.bytes} }

// view runs a transaction that reads, and update runs a transaction that writes. Both return
// meta.ErrClosed if the file has been closed.
func (s *Store) view(ctx context.Context, read func(*bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := s.opened(ctx)
	if err != nil {
		return err
	}
	return translate(f.contain(func(db *bbolt.DB) error {
		return db.View(func(tx *bbolt.Tx) error { return read(tx.Bucket([]byte(facts))) })
	}))
}

func (s *Store) update(ctx context.Context, write func(*bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := s.opened(ctx)
	if err != nil {
		return err
	}
	select {
	case f.writer <- struct{}{}:
		defer func() { <-f.writer }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.dirty.Store(true)
	return translate(f.contain(func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error { return write(tx.Bucket([]byte(facts))) })
	}))
}

func translate(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return meta.ErrClosed
	}
	return err
}

// Get implements [meta.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, err error) {
	err = s.view(ctx, func(b *bbolt.Bucket) error {
		v, ok := unseal(b.Get([]byte(key)), time.Now().UnixNano())
		if !ok {
			return meta.ErrNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// GetAll implements [meta.Batch] in one transaction.
func (s *Store) GetAll(ctx context.Context, keys []string) (all []meta.Seen, err error) {
	err = s.view(ctx, func(b *bbolt.Bucket) error {
		now := time.Now().UnixNano()
		for _, k := range keys {
			v, ok := unseal(b.Get([]byte(k)), now)
			all = append(all, meta.Seen{Entry: meta.Entry{Key: k, Value: bytes.Clone(v)}, Found: ok})
		}
		return nil
	})
	return all, err
}

// Swap implements [meta.Swapper] in one transaction.
func (s *Store) Swap(ctx context.Context, writes []meta.Write, snapshot []meta.Seen) (ok bool, err error) {
	err = s.update(ctx, func(b *bbolt.Bucket) error {
		now := time.Now().UnixNano()
		for _, was := range snapshot {
			v, found := unseal(b.Get([]byte(was.Key)), now)
			if found != was.Found || found && !bytes.Equal(v, was.Value) {
				return nil
			}
		}
		for _, w := range writes {
			if err := put(b, w.Entry, w.TTL); err != nil {
				return err
			}
		}
		ok = true
		return nil
	})
	return ok && err == nil, err
}

// Put implements [meta.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.PutAll(ctx, []meta.Entry{{Key: key, Value: value}}, ttl)
}

// PutAll implements [meta.Batch] in one transaction.
func (s *Store) PutAll(ctx context.Context, entries []meta.Entry, ttl time.Duration) error {
	return s.update(ctx, func(b *bbolt.Bucket) error {
		for _, e := range entries {
			if err := put(b, e, ttl); err != nil {
				return err
			}
		}
		return nil
	})
}

func put(b *bbolt.Bucket, e meta.Entry, ttl time.Duration) (err error) {
	if ttl < 0 {
		err = b.Delete([]byte(e.Key))
	} else {
		err = b.Put([]byte(e.Key), seal(e.Value, expiry(ttl)))
	}
	if err != nil {
		return fmt.Errorf("put %.100q: %w", e.Key, err)
	}
	return nil
}

// Delete implements [meta.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.update(ctx, func(b *bbolt.Bucket) error { return b.Delete([]byte(key)) })
}

// These bounds keep each read transaction of a scan or sweep short. During a long transaction, the
// file would grow, because bbolt could not reuse the pages that writes free.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// Scan implements [meta.Store]. It reads a page of entries at a time. No transaction is open while
// the loop body runs: a write in the loop body could wait forever for an open transaction to end.
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[meta.Entry, error] {
	return func(yield func(meta.Entry, error) bool) {
		for from, more := prefix, true; more; {
			var page []meta.Entry
			err := s.view(ctx, func(b *bbolt.Bucket) error {
				page, from, more = readPage(b, prefix, from)
				return nil
			})
			if err != nil {
				yield(meta.Entry{}, err)
				return
			}
			for _, e := range page {
				if err := ctx.Err(); err != nil {
					yield(meta.Entry{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// readPage returns the unexpired entries of the page that begins at startKey. It also returns the
// key at which the next page begins, and whether there is a next page.
func readPage(b *bbolt.Bucket, prefix, startKey string) (page []meta.Entry, next string, more bool) {
	now := time.Now().UnixNano()
	size, visited := 0, 0
	c := b.Cursor()
	for k, v := c.Seek([]byte(startKey)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
		if visited >= 4*pageEntries || len(page) >= pageEntries || size >= pageBytes {
			return page, string(k), true
		}
		visited++
		if value, ok := unseal(v, now); ok {
			page = append(page, meta.Entry{Key: string(k), Value: append([]byte{}, value...)})
			size += len(k) + len(value)
		}
	}
	return page, "", false
}

// Close syncs and closes the file and removes the marker of use. If damage was found, Close does
// nothing and returns ErrCorrupt. The marker then stays, so the next process checks the file.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.opening <- struct{}{}
		s.closed = true
		<-s.opening
		f := s.file.Load()
		if f == nil {
			return
		}
		s.closeErr = f.close(func() error { return removeMarker(s.o.Path) })
		if s.closeErr != nil {
			s.closeErr = fmt.Errorf("close metadata %s: %w", s.o.Path, s.closeErr)
		}
	})
	return s.closeErr
}
