package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Errors of stores and of the wrappers around them.
var (
	// ErrNotFound says that a store answered and has no entry under a key, or only an expired entry.
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
// do so for longer. When a Put or Delete has returned, every later read of the same process sees
// the change.
type Store interface {
	// Get returns the value under key, or ErrNotFound. The caller owns the returned value.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put replaces the value under key. It does not keep a reference to value. With a ttl of 0 the
	// entry never expires. With a negative ttl, Put removes the entry. A ttl above [MaxTTL] may count
	// as MaxTTL.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Delete removes the entry under key. A missing key is no error.
	Delete(ctx context.Context, key string) error
	// Scan yields the entries that have not expired and whose key begins with prefix, in no particular
	// order. It may yield an entry more than once, and may miss an entry that changes during the scan.
	// The first error ends the scan. The loop body may call the store.
	Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error]
	// Close releases the store. A second call is no error.
	Close() error
}

// Seen is the result of reading a key from a store.
type Seen struct {
	Entry
	Found bool // there was an entry
	// Refused says that the store has refused the last write of this process under the key. Only a
	// [Cached] knows that.
	Refused bool
}

// [Seen.same] reports whether s and o agree: they have the same key, and both found the same value
// or both found no entry.
func (s Seen) same(o Seen) bool {
	return s.Key == o.Key && s.Found == o.Found && (!s.Found || bytes.Equal(s.Value, o.Value))
}

// Write is an entry to be put, with its ttl as in Put.
type Write struct {
	Entry
	TTL time.Duration
}

// Batch is implemented by stores that can read or put many entries at about the price of one.
type Batch interface {
	// GetAll returns the entries under the keys, in the same order.
	GetAll(ctx context.Context, keys []string) ([]Seen, error)
	// PutAll puts the entries. They are not put atomically: after an error some of them may have been
	// put.
	PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error
}

// Swapper is implemented by stores that can compare and put in one step.
type Swapper interface {
	// Swap reads the keys in snapshot again. If the result is the same as snapshot, Swap puts all
	// entries of the parameter writes. It reports whether it has put them.
	Swap(ctx context.Context, writes []Write, snapshot []Seen) (bool, error)
}

// Clocked is implemented by stores that several machines share. Facts get their times from the
// clock of the store, because the clocks of these machines may differ.
type Clocked interface {
	// Clock reads the clock of the store and the clock of this process at the same moment.
	Clock(ctx context.Context) (store, local time.Time, err error)
}

// GetAll returns the entries under the keys, in the same order. It needs one call if s is a
// [Batch]. For any other store, it needs one call for each key.
func GetAll(ctx context.Context, s Store, keys []string) ([]Seen, error) {
	if b, ok := s.(Batch); ok {
		return b.GetAll(ctx, keys)
	}
	all := make([]Seen, 0, len(keys))
	for _, k := range keys {
		value, err := s.Get(ctx, k)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		all = append(all, Seen{Entry: Entry{k, value}, Found: err == nil})
	}
	return all, nil
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

// Swap reads the keys in snapshot again. If the result is the same as snapshot, Swap puts all
// entries of the parameter writes. It reports whether it has put them. If s cannot compare and put
// in one step, other callers may write between the two.
func Swap(ctx context.Context, s Store, writes []Write, snapshot []Seen) (bool, error) {
	if sw, ok := s.(Swapper); ok {
		return sw.Swap(ctx, writes, snapshot)
	}
	return SwapInSteps(ctx, s, writes, snapshot)
}

// SwapInSteps is Swap for stores that cannot compare and put in one step. It puts the entries in
// their order.
func SwapInSteps(ctx context.Context, s Store, writes []Write, snapshot []Seen) (bool, error) {
	keys := make([]string, len(snapshot))
	for i := range snapshot {
		keys[i] = snapshot[i].Key
	}
	now, err := GetAll(ctx, s, keys)
	if err != nil {
		return false, err
	}
	for i := range snapshot {
		if !now[i].same(snapshot[i]) {
			return false, nil
		}
	}
	for _, w := range writes {
		if err := s.Put(ctx, w.Key, w.Value, w.TTL); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Clock reads two clocks at the same moment: the clock that dates the facts in s, and the clock of
// this process. The two times are equal if s is not [Clocked], or does not answer.
func Clock(ctx context.Context, s Store) (store, local time.Time) {
	store, local, err := askClock(ctx, s)
	if err != nil {
		local = time.Now()
		store = local
	}
	return store, local
}

func askClock(ctx context.Context, s Store) (store, local time.Time, err error) {
	if c, ok := s.(Clocked); ok {
		return c.Clock(ctx)
	}
	now := time.Now()
	return now, now, nil
}
