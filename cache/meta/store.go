package meta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Errors of stores and of the wrappers around them.
var (
	// ErrNotFound says that a store answered and has no entry under a key, or only an expired one.
	ErrNotFound = errors.New("not found")
	// ErrClosed says that the store was used after Close.
	ErrClosed = errors.New("store is closed")
	// ErrUnavailable says that the store was not asked, because it failed a moment ago.
	ErrUnavailable = errors.New("store is unavailable")
)

// Entry is one key with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Store maps keys to small values that expire.
//
// Keys are non-empty strings of at most 8 KiB and may have any bytes. Values may be empty. All
// methods may be called concurrently. A Store does not retry: it reports a failure at once, and the
// caller continues without the answer. If the context of a call has ended before the call, the
// method returns the error of the context. After Close, methods with a context return ErrClosed.
//
// A Store may return an entry for about a second after its expiry. A [Cached] whose store fails may
// do so for longer. A read that begins after a Put or Delete of the same process has returned sees
// the change.
type Store interface {
	// Get returns the value under key, which the caller then owns, or ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put replaces the value under key. It does not keep a reference to value. With a ttl of 0 the
	// entry never expires. With a negative ttl, Put removes the entry. A ttl above [MaxTTL] may count
	// as MaxTTL.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Delete removes the entry under key. A missing key is no error.
	Delete(ctx context.Context, key string) error
	// Scan yields the living entries whose key begins with prefix, in no particular order. It may
	// yield an entry more than once, and may miss one that changes during the scan. The first error
	// ends the scan. The loop body may call the store.
	Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error]
	// Close releases the store. A second call is no error.
	Close() error
}

// Batch is implemented by stores that can put many entries at about the price of one. The entries
// are not put atomically: after an error some of them may have been put.
type Batch interface {
	PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error
}

// PutAll puts the entries into s: in one call if s is a [Batch], otherwise one after the other.
func PutAll(ctx context.Context, s Store, entries []Entry, ttl time.Duration) error {
	if len(entries) == 0 {
		return ctx.Err()
	}
	if b, ok := s.(Batch); ok {
		return b.PutAll(ctx, entries, ttl)
	}
	for _, e := range entries {
		if err := s.Put(ctx, e.Key, e.Value, ttl); err != nil {
			return fmt.Errorf("put %d entries: %w", len(entries), err)
		}
	}
	return nil
}
