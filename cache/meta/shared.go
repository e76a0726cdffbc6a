package meta

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sharedSpace is the prefix of every key of a [Shared]. Mirrors without a fleet have other keys and
// sign nothing. Because of the prefix, they and a fleet never find each other's facts.
const sharedSpace = "fleet/"

// signedSpaces are the spaces of facts on which dray relies to show content or to accept a push.
var signedSpaces = map[string]string{linkSpace: "visibility", verdictSpace: "verdicts", baseSpace: "base_images"}

// SharedOptions describe the fleet of a [Shared]. The functions may be called concurrently.
type SharedOptions struct {
	// Identity returns the text by which keys name an upstream. It is the same for all members whose
	// upstreams are the same registry with the same rights. It is "" for an upstream about which no
	// facts are shared.
	Identity func(upstream string) string
	// Names returns the names of all upstreams that have the given identity.
	Names func(identity string) []string
	// All returns a text that stands for the list of all upstreams. Keys of facts about base images
	// contain it.
	All func() string
	// Sign returns the proof that a member of the fleet wrote a message.
	Sign func(message []byte) []byte
	// Verify reports whether any signing key that is valid now gives this proof for the message.
	Verify func(message, proof []byte) bool
}

// Shared is a [Store] with the facts of a fleet. It keeps them in another store, to which programs
// outside of the fleet can also write.
//
// The keys of the store have the identities of upstreams in place of their names. So members whose
// upstreams differ share no fact about them, even if the names are the same. Facts about base
// images have names of upstreams in their values, so members share these facts only if all of their
// upstreams are the same. Values about visibility, verdicts and base images are signed. The
// signature also covers the key in the store and the time of expiry. A value without a valid proof
// counts as absent. Facts of other types only save requests, or say what a tag means, and are not
// signed.
type Shared struct {
	store Store
	o     SharedOptions
	bad   *prometheus.CounterVec
}

var (
	_ Store   = (*Shared)(nil)
	_ Batch   = (*Shared)(nil)
	_ Swapper = (*Shared)(nil)
	_ Clocked = (*Shared)(nil)
)

// NewShared returns the facts of a fleet in s. Close also closes s.
func NewShared(s Store, o SharedOptions) *Shared {
	bad := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_fleet_unproven_facts_total",
		Help: "Facts that dray treated as absent because no key of the fleet proves them, by type: visibility, verdicts, base_images. The process that wrote such a fact is not a member, or has a secret that is not valid here.",
	}, []string{"facts"})
	for _, facts := range signedSpaces {
		bad.WithLabelValues(facts) // from 0, so that the first one shows as an increase
	}
	return &Shared{s, o, bad}
}

// [Shared.key] returns the key in the store for a key of the caller. ok is false if no facts are
// shared about the upstream of the key.
func (s *Shared) key(key string) (shared string, ok bool) {
	space, upstream, rest, about := splitUpstream(key)
	if sum, ok := strings.CutPrefix(key, baseSpace); ok {
		return sharedSpace + path(baseSpace, s.o.All(), "") + sum, true
	}
	if !about {
		return sharedSpace + key, true
	}
	identity := s.o.Identity(upstream)
	return sharedSpace + path(space, identity, "") + rest, identity != ""
}

// [signed] returns the type of the facts under a key in the store. ok is false if the values of
// these facts are not signed.
func signed(shared string) (facts string, ok bool) {
	for space, facts := range signedSpaces {
		if strings.HasPrefix(shared, sharedSpace+space) {
			return facts, true
		}
	}
	return "", false
}

// message returns the bytes that the proof of a value covers. expiry is when the value expires, in
// Unix seconds; 0 means never.
func message(shared string, expiry int64, value []byte) []byte {
	m := binary.BigEndian.AppendUint64([]byte("dray fact 1\n"), uint64(len(shared)))
	m = binary.BigEndian.AppendUint64(append(m, shared...), uint64(expiry))
	return append(m, value...)
}

// seal returns the value for the store. If the facts under the key are signed, that is the time of
// expiry, the proof and the value, with a space between them. Because the proof covers the time,
// nobody can put an old value back after it has expired.
func (s *Shared) seal(shared string, value []byte, ttl time.Duration) []byte {
	if _, ok := signed(shared); !ok {
		return value
	}
	until := int64(0)
	if ttl > 0 {
		until = time.Now().Add(ttl).Unix() + 1
	}
	proof := base64.RawURLEncoding.EncodeToString(s.o.Sign(message(shared, until, value)))
	return append([]byte(strconv.FormatInt(until, 10)+" "+proof+" "), value...)
}

// open is the inverse of seal. It returns ErrNotFound for a value that has expired, or that lacks
// the proof that its facts need.
func (s *Shared) open(shared string, sealed []byte) ([]byte, error) {
	facts, ok := signed(shared)
	if !ok {
		return sealed, nil
	}
	parts := strings.SplitN(string(sealed), " ", 3)
	if len(parts) == 3 {
		until, err1 := strconv.ParseInt(parts[0], 10, 64)
		proof, err2 := base64.RawURLEncoding.DecodeString(parts[1])
		value := []byte(parts[2])
		if err1 == nil && err2 == nil && s.o.Verify(message(shared, until, value), proof) {
			if until != 0 && time.Now().Unix() > until {
				return nil, ErrNotFound
			}
			return value, nil
		}
	}
	s.bad.WithLabelValues(facts).Inc()
	return nil, fmt.Errorf("%w: no key of the fleet proves the value", ErrNotFound)
}

// Get implements [Store].
func (s *Shared) Get(ctx context.Context, key string) ([]byte, error) {
	shared, ok := s.key(key)
	if !ok {
		return nil, ErrNotFound
	}
	sealed, err := s.store.Get(ctx, shared)
	if err != nil {
		return nil, err
	}
	return s.open(shared, sealed)
}

// GetAll implements [Batch].
func (s *Shared) GetAll(ctx context.Context, keys []string) ([]Seen, error) {
	var shared []string
	var at []int
	all := make([]Seen, len(keys))
	for i, key := range keys {
		all[i].Key = key
		if k, ok := s.key(key); ok {
			shared, at = append(shared, k), append(at, i)
		}
	}
	if len(shared) == 0 {
		return all, ctx.Err()
	}
	seen, err := GetAll(ctx, s.store, shared)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		if !seen[n].Found {
			continue
		}
		if value, err := s.open(shared[n], seen[n].Value); err == nil {
			all[i].Value, all[i].Found = value, true
		}
	}
	return all, nil
}

// Swap implements [Swapper]. If an entry in snapshot is signed, Swap compares and writes in
// separate steps: the store cannot compare such entries, because the same value may have different
// proofs.
func (s *Shared) Swap(ctx context.Context, writes []Write, snapshot []Seen) (bool, error) {
	theirs := make([]Seen, 0, len(snapshot))
	for _, was := range snapshot {
		key, ok := s.key(was.Key)
		if _, proven := signed(key); proven || !ok && was.Found {
			return SwapInSteps(ctx, s, writes, snapshot)
		}
		if ok {
			theirs = append(theirs, Seen{Entry: Entry{key, was.Value}, Found: was.Found})
		}
	}
	mine := make([]Write, 0, len(writes))
	for _, w := range writes {
		if key, ok := s.key(w.Key); ok {
			mine = append(mine, Write{Entry{key, s.seal(key, w.Value, w.TTL)}, w.TTL})
		}
	}
	if len(mine)+len(theirs) == 0 {
		return true, ctx.Err()
	}
	return Swap(ctx, s.store, mine, theirs)
}

// Clock implements [Clocked].
func (s *Shared) Clock(ctx context.Context) (store, local time.Time, err error) {
	return askClock(ctx, s.store)
}

// Put implements [Store].
func (s *Shared) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	shared, ok := s.key(key)
	if !ok {
		return nil
	}
	return s.store.Put(ctx, shared, s.seal(shared, value, ttl), ttl)
}

// PutAll implements [Batch].
func (s *Shared) PutAll(ctx context.Context, entries []Entry, ttl time.Duration) error {
	all := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if shared, ok := s.key(e.Key); ok {
			all = append(all, Entry{shared, s.seal(shared, e.Value, ttl)})
		}
	}
	return PutAll(ctx, s.store, all, ttl)
}

// Delete implements [Store].
func (s *Shared) Delete(ctx context.Context, key string) error {
	shared, ok := s.key(key)
	if !ok {
		return nil
	}
	return s.store.Delete(ctx, shared)
}

// Scan implements [Store]. It leaves out entries that [Shared.open] refuses, and facts about
// upstreams that this member does not have. If several upstreams have one identity, it yields each
// of their facts once under each upstream's name, or only under the name in prefix.
func (s *Shared) Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		shared, ok := s.key(prefix)
		if !ok {
			return
		}
		_, only, _, _ := splitUpstream(prefix)
		for e, err := range s.store.Scan(ctx, shared) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			value, err := s.open(e.Key, e.Value)
			if err != nil {
				continue
			}
			for _, key := range s.original(strings.TrimPrefix(e.Key, sharedSpace), only) {
				if !yield(Entry{key, slices.Clone(value)}, nil) {
					return
				}
			}
		}
	}
}

// [Shared.original] returns the keys that an entry of the store has for this member. If upstream is
// not empty, original leaves out keys about other upstreams.
func (s *Shared) original(key, upstream string) (keys []string) {
	if sum, ok := strings.CutPrefix(key, path(baseSpace, s.o.All(), "")); ok {
		return []string{baseSpace + sum}
	}
	space, identity, rest, about := splitUpstream(key)
	switch {
	case strings.HasPrefix(key, baseSpace):
		return nil
	case !about:
		return []string{key}
	}
	for _, name := range s.o.Names(identity) {
		if upstream == "" || upstream == name {
			keys = append(keys, path(space, name, "")+rest)
		}
	}
	return keys
}

// Close implements [Store].
func (s *Shared) Close() error { return s.store.Close() }

// Collectors returns the metrics of the facts.
func (s *Shared) Collectors() []prometheus.Collector { return []prometheus.Collector{s.bad} }
