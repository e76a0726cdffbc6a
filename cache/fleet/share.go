package fleet

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
)

// maxBreaks bounds how many streams of other members one fetch uses up. After that, it asks the
// registry, so that a fleet in trouble does not use up the attempts of the cache.
const maxBreaks = 3

// A member that has just taken over may not know that yet, and answer as the follower that it was.
// A fetch that would read from it asks again after farPause, at most maxFar times.
const (
	farPause = 50 * time.Millisecond
	maxFar   = 20
)

// Share is this member's part in one fetch of a blob. It decides, each time the fetch needs bytes,
// whether another member gives them, or the fetch asks the registry. Once the fetch has asked the
// registry, it goes on doing so. All methods may be called concurrently. A nil Share, where there
// is no fleet, always says that the fetch asks the registry.
type Share struct {
	f      *Fleet
	digest digest.Digest

	mu       sync.Mutex // guards the fields below; held during Open
	upstream bool       // the registry is asked
	asked    bool       // the registry has been asked at least once
	lease    *Lease     // held by this member for this fetch
	failed   int64      // the generation that this member has seen fail
	at       position
	breaks   int
	given    map[string]bool // the members that gave bytes
}

// Share returns this member's part in a fetch that is about to begin.
func (f *Fleet) Share(d digest.Digest) *Share {
	if f == nil {
		return nil
	}
	return &Share{f: f, digest: d, at: position{0, math.MaxInt}}
}

// Open opens the bytes of a blob from an offset to its end at another member. It returns false if
// the fetch is to ask the registry: this member then has the lease, or fetches for itself. most is
// the length of the blob in bytes as far as it is known, or negative; a member that announces more
// is not believed. A stream that breaks off ends with an error, and the next Open says how to go
// on.
func (s *Share) Open(ctx context.Context, from, most int64) (cache.Stream, bool) {
	if s == nil {
		return cache.Stream{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upstream {
		return cache.Stream{}, false
	}
	if reason, ok := s.f.mayTake(s.digest); !ok {
		return s.alone(reason)
	}
	for far := 0; s.breaks < maxBreaks; {
		l, err := s.f.take(ctx, s.digest, s.failed)
		switch {
		case err != nil:
			return s.alone(aloneStore)
		case l.Holder == s.f.o.Self.ID:
			if s.failed > 0 {
				s.f.m.takeovers.Inc()
			}
			s.f.m.fetches.WithLabelValues("holder").Inc()
			s.lease, s.upstream, s.asked = &l, true, true
			return cache.Stream{}, false
		}
		stream, err := s.follow(ctx, l, from, most)
		switch {
		case err == nil:
			return stream, true
		case ctx.Err() != nil:
			return s.alone(aloneBroken)
		case errors.Is(err, errProtocol):
			return s.alone(aloneProtocol)
		case errors.Is(err, errFull):
			return s.alone(aloneBusy)
		case errors.Is(err, errLate):
			return s.alone(aloneLate)
		case errors.Is(err, errFar) && far < maxFar:
			far++
			select {
			case <-time.After(farPause):
				continue
			case <-ctx.Done():
				return s.alone(aloneBroken)
			}
		}
		s.f.log.Debug("fleet: another member does not give a blob", "digest", s.digest, "member", l.Holder, "address", l.Address, "error", err)
		s.broken(l, true)
	}
	return s.alone(aloneBroken)
}

// alone makes the fetch ask the registry without a lease.
func (s *Share) alone(reason string) (cache.Stream, bool) {
	s.upstream, s.asked = true, true
	s.f.forgetFollowing(s.digest)
	s.f.m.fetches.WithLabelValues("alone").Inc()
	s.f.m.alone.WithLabelValues(reason).Inc()
	return cache.Stream{}, false
}

// Unconfirmed makes the fetch ask the registry from now on, because the registry gave no clear
// answer to the question whether the repository has the blob.
func (s *Share) Unconfirmed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.upstream {
		s.alone(aloneRefused)
	}
}

// broken counts a stream that broke off. If the holder of the lease is to blame, its generation has
// failed. It needs mu.
func (s *Share) broken(l Lease, holder bool) {
	s.breaks++
	if holder {
		s.failed = l.Generation
	}
}

// streamEnded is called when a stream has ended before its last byte. blame says that the member
// did not answer or has lost the blob.
func (s *Share) streamEnded(l Lease, holder, blame bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken(l, holder && blame)
}

// gave notes that a member has given bytes.
func (s *Share) gave(member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given == nil {
		s.given = map[string]bool{}
	}
	s.given[member] = true
}

// follow opens a stream at the holder of a lease, or at one of its followers if it has too many. It
// needs mu.
func (s *Share) follow(ctx context.Context, l Lease, from, most int64) (cache.Stream, error) {
	if s.f.isBanned(l.Holder) {
		return cache.Stream{}, errBanned
	}
	failed := errAddress
	tried := map[string]bool{}
	for next := []string{l.Address}; len(next) > 0 && len(tried) < 2*maxFollowers; {
		address := next[0]
		if next = next[1:]; tried[address] || address == "" || address == s.f.o.Self.Address {
			continue
		}
		tried[address] = true
		holder := address == l.Address
		stream, err := s.f.open(ctx, request{l, address, s.digest, from, most, s.at})
		if err == nil {
			s.at = position{stream.at.generation, stream.at.hop + 1}
			s.f.setFollowing(s.digest, s.at)
			s.f.m.fetches.WithLabelValues("follower").Inc()
			stream.share, stream.lease, stream.holder = s, l, holder
			return cache.Stream{Body: stream, Size: stream.size, Whole: true}, nil
		}
		if full, ok := errors.AsType[*fullError](err); ok {
			next = append(next, full.followers...)
		}
		if holder {
			failed = err
		}
		if ctx.Err() != nil || errors.Is(err, errLate) {
			return cache.Stream{}, err
		}
	}
	return cache.Stream{}, failed
}

// Ended notes how the fetch has ended. It returns true if the bytes were wrong, and other members
// gave some of them, so that another fetch, from the registry alone, may succeed.
func (s *Share) Ended(reason error) (again bool) {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f.forgetFollowing(s.digest)
	if s.lease != nil {
		s.f.ended(*s.lease, reason)
		s.lease = nil
	}
	again = (errors.Is(reason, cache.ErrCorrupt) || errors.Is(reason, cache.ErrSize)) && len(s.given) > 0
	if again {
		s.f.wrong(s.digest, slices.Collect(maps.Keys(s.given)), !s.asked)
		clear(s.given)
	}
	s.upstream = true
	return again
}

func (f *Fleet) setFollowing(d digest.Digest, at position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.following[d] = at
}

func (f *Fleet) forgetFollowing(d digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.following, d)
}
