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

// maxBreaks is the number of broken streams of other members after which a fetch asks the registry.
// So failing members do not use up the resumptions that the cache allows each fetch.
const maxBreaks = 3

// breakGain is a number of bytes. If a stream breaks off after at least this many bytes, the fetch
// counts broken streams from zero again.
const breakGain = 32 << 20

// farPause is the pause before a fetch repeats a request that failed with errFar. The error says
// that the member that answers is not nearer to the registry than this member. A member that has
// just taken the lease may answer so for a moment, because it was a follower before. The fetch
// repeats the request until Patience.Far is over.
const farPause = 50 * time.Millisecond

var (
	// ErrRegistry says that the fetch must ask its registry, and not another member.
	ErrRegistry = errors.New("no other member sends the blob")
	// ErrFinished says that the fetch must ask the bucket, because another member has the whole blob.
	ErrFinished = errors.New("another member has the whole blob")
)

// Want is a part of a blob that a fetch needs.
type Want struct {
	// From and To are the offsets of the part. A To of 0 means the end of the blob.
	From, To int64
	// On allows the stream of another member to go on beyond To, with the bytes that the other member
	// has or gets.
	On bool
	// Most is the length of the blob in bytes, or negative if it is not known. The fetch rejects a
	// stream of a member that announces a greater length.
	Most int64
}

// role says from where a fetch gets its bytes.
type role int

const (
	undecided role = iota
	follower       // reads from another member
	holder         // has the lease
	alone          // asks the registry without the lease
	finished       // reads from the bucket, because another member has the whole blob
)

// Share is this member's part in one fetch of a blob. Each time the fetch needs bytes, the Share
// decides whether another member sends them or the fetch asks the registry. A fetch that has asked
// the registry never becomes a follower. All methods may be called concurrently. Without a fleet,
// the Share is nil, and the fetch always asks the registry.
type Share struct {
	f      *Fleet
	digest digest.Digest
	bucket bool // there is a bucket that may have blobs that other members have fetched

	mu        sync.Mutex // guards the fields below; held during Open
	role      role
	asked     bool   // the registry or the bucket may have sent bytes
	lease     Lease  // the lease of this member for this fetch, or of the holder that the fetch follows
	source    string // the address of the member from which a follower reads; "" after a stream from it broke off
	open      int    // the number of open streams from source
	failed    int64  // the generation of the last lease whose holder did not send the blob, or 0
	at        position
	breaks    int
	strikes   map[string]int // how many streams broke off, by address
	congested string         // the address of a member whose last stream ended with errBehind
	others    []string       // addresses of other followers that members have named
	holdings  []holding      // the parts that other members hold
	given     map[string]bool
}

// Share returns this member's part in a fetch that is about to begin. bucket says that there is a
// bucket that may have the blob.
func (f *Fleet) Share(d digest.Digest, bucket bool) *Share {
	if f == nil {
		return nil
	}
	return &Share{f: f, digest: d, bucket: bucket, at: position{0, math.MaxInt}, strikes: map[string]int{}, given: map[string]bool{}}
}

// Open opens a part of a blob at another member. It returns ErrRegistry if this member fetches
// alone, or if it has the lease and no other member sends the part. The fetch must then ask the
// registry for the part up to the offset that Open returns; 0 means the end of the blob. Open
// returns ErrFinished if the fetch must ask the bucket. If the bucket does not have the blob, the
// fetch must call NoBucket and then Open again. If the fetch is a follower and cannot read this
// part now, Open returns another error. After a stream has ended with an error, the fetch calls
// Open for the missing bytes.
func (s *Share) Open(ctx context.Context, w Want) (stream cache.Stream, end int64, err error) {
	if s == nil {
		return cache.Stream{}, w.To, ErrRegistry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.role == undecided || s.role == follower {
		if stream, err = s.follow(ctx, w); err == nil {
			return stream, 0, nil
		}
	}
	switch s.role {
	case holder:
		if stream, ok := s.fromHoldings(ctx, w); ok {
			return stream, 0, nil
		}
		s.asked = true
		return cache.Stream{}, s.gap(w), ErrRegistry
	case finished:
		s.asked = true
		return cache.Stream{}, w.To, ErrFinished
	case follower:
		return cache.Stream{}, 0, err
	default:
		s.asked = true
		return cache.Stream{}, w.To, ErrRegistry
	}
}

// follow makes the fetch a follower, and opens a part of the blob at another member. If this fails,
// the fetch gets another role, or remains a follower. It needs mu.
func (s *Share) follow(ctx context.Context, w Want) (cache.Stream, error) {
	if s.source != "" {
		q := s.request(s.lease, s.source, w)
		q.unfinished = false // the fetch goes on with this member, even if the member has the whole blob by now
		stream, err := s.f.open(ctx, q)
		if err == nil {
			return s.attach(stream, s.lease, w), nil
		}
		if ctx.Err() != nil || w.To > 0 && !w.On && (errors.Is(err, errFull) || errors.Is(err, errLate) || errors.Is(err, errFar)) {
			return cache.Stream{}, err // a part may fail: another stream of this fetch brings the whole blob
		}
	}
	if reason, ok := s.f.mayTake(s.digest); !ok {
		return s.goAlone(reason)
	}
	var far time.Time // when a member first answered that it is not nearer to the registry
	for s.breaks < maxBreaks {
		l, err := s.f.take(ctx, s.digest, s.failed)
		switch {
		case err != nil:
			return s.goAlone(aloneStore)
		case l.Holder == s.f.me.ID:
			return cache.Stream{}, s.hold(ctx, l)
		case l.Generation != s.lease.Generation:
			clear(s.strikes)
		}
		stream, err := s.join(ctx, l, w)
		switch {
		case err == nil:
			s.f.m.fetches.WithLabelValues("follower").Inc()
			return s.attach(stream, l, w), nil
		case ctx.Err() != nil:
			return s.goAlone(aloneBroken)
		case errors.Is(err, ErrFinished):
			s.role = finished
			s.f.m.fetches.WithLabelValues("bucket").Inc()
			return cache.Stream{}, err
		case errors.Is(err, ErrProtocol):
			return s.goAlone(aloneProtocol)
		case errors.Is(err, errFull):
			return s.goAlone(aloneBusy)
		case errors.Is(err, errLate), errors.Is(err, errFar) && !far.IsZero() && time.Since(far) >= s.f.o.Patience.Far:
			return s.goAlone(aloneLate)
		case errors.Is(err, errFar):
			if far.IsZero() {
				far = time.Now()
			}
			select {
			case <-time.After(farPause):
			case <-ctx.Done():
			}
			continue
		}
		s.f.log.Debug("fleet: another member does not send a blob", "digest", s.digest, "member", l.Holder, "address", l.Address, "error", err)
		if !errors.Is(err, errDead) { // if trust returned errDead, streamEnded has already counted the broken streams
			s.breaks++
		}
		s.failed, s.lease = l.Generation, l
	}
	return s.goAlone(aloneBroken)
}

// goAlone makes the fetch ask the registry without a lease. It needs mu.
func (s *Share) goAlone(reason string) (cache.Stream, error) {
	s.role = alone
	s.f.unfollow(s.digest)
	s.f.m.fetches.WithLabelValues("alone").Inc()
	s.f.m.alone.WithLabelValues(reason).Inc()
	return cache.Stream{}, ErrRegistry
}

// [Share.hold] makes this fetch the holder. If this fetch replaces a failed holder, hold asks all
// members which parts of the blob they hold. Otherwise, if there is no bucket, hold asks the
// members of this zone whether they still have the blob from an earlier fetch. It needs mu.
func (s *Share) hold(ctx context.Context, l Lease) error {
	s.f.m.fetches.WithLabelValues("holder").Inc()
	lost := s.lease.Address
	s.role, s.lease = holder, l
	switch {
	case s.failed > 0:
		s.f.m.takeovers.Inc()
		s.holdings = s.f.survey(ctx, s.request(l, "", Want{Most: -1}), s.f.everybody(s.others, lost), s.f.patience.Answer)
	case !s.bucket:
		s.holdings = s.f.survey(ctx, s.request(l, "", Want{Most: -1}), s.f.neighbours(), s.f.patience.Presence)
	}
	return ErrRegistry
}

// NoBucket records that the bucket does not have the blob.
func (s *Share) NoBucket() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bucket = false
	if s.role == finished {
		s.role = undecided
	}
}

// Unconfirmed makes the fetch ask the registry from now on. It is called when the registry did not
// clearly answer whether the repository has the blob.
func (s *Share) Unconfirmed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holdings, s.asked = nil, true
	if s.role != holder && s.role != alone {
		_, _ = s.goAlone(aloneRefused)
	}
}

// request returns a request of this fetch to the member at an address. It needs mu.
func (s *Share) request(l Lease, address string, w Want) request {
	if w.On {
		w.To = 0
	}
	return request{lease: l, address: address, digest: s.digest, want: w, at: s.at, unfinished: s.bucket}
}

// attach makes the fetch a follower, and adds the stream to its streams. It needs mu.
func (s *Share) attach(stream *stream, l Lease, w Want) cache.Stream {
	if address := stream.q.address; s.role != follower || s.source != address || s.lease.Generation != l.Generation {
		s.role, s.source, s.lease, s.open = follower, address, l, 0
		s.at = position{stream.at.generation, stream.at.hop + 1}
		s.f.positions.follow(s.digest, s.at)
	}
	s.open++
	s.congested = ""
	s.name(stream.others)
	stream.share = s
	return cache.Stream{Body: stream, Size: stream.size, Follows: stream.q.want.To == 0}
}

// [Share.name] adds to s.others the addresses of members that read the blob. It needs mu.
func (s *Share) name(others []string) {
	if len(s.others) < maxAsked {
		s.others = append(s.others, others...)
	}
}

// streamEnded is called once for each stream, with the number of bytes that it sent. An err of nil
// says that the stream sent all bytes, or that the fetch needs no more.
func (s *Share) streamEnded(q request, gave int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.held {
		if err != nil {
			s.holdings = slices.DeleteFunc(s.holdings, func(h holding) bool { return h.address == q.address })
		}
		return
	}
	if q.address != s.source || q.lease.Generation != s.lease.Generation {
		return
	}
	s.open--
	if err == nil || s.open > 0 && !errors.Is(err, errDead) {
		return // while another stream of the member goes on, the member has not failed
	}
	if gave >= breakGain {
		s.breaks = 0
		clear(s.strikes)
	}
	s.breaks++
	s.source = ""
	switch {
	case errors.Is(err, errDead):
		s.strikes[q.address] = maxStrikes
	case errors.Is(err, errBehind):
		s.congested = q.address
	case !errors.Is(err, cache.ErrStalled):
		s.strikes[q.address]++
	}
}

// maxStrikes is how many streams of a member break off before the member counts as failed.
const maxStrikes = 2

// trust returns an error if a member counts as failed. After a broken stream, trust asks the member
// whether the member still has the blob. It needs mu.
func (s *Share) trust(ctx context.Context, q request) error {
	switch n := s.strikes[q.address]; {
	case n >= maxStrikes:
		return errDead
	case n == 0:
		return nil
	}
	_, err := s.f.progress(ctx, q, q.want.From)
	return err
}

// join opens a stream at the member that [Share.neighbour] finds, or else at the holder of a lease.
// If a member has too many followers, join tries these followers. It needs mu.
func (s *Share) join(ctx context.Context, l Lease, w Want) (*stream, error) {
	if s.f.isBanned(l.Holder) {
		return nil, errBanned
	}
	if s.congested != "" && s.f.followersOf(s.digest) == 0 {
		s.at = position{0, math.MaxInt} // no member follows this fetch, so this fetch may move further from the registry
	} else {
		s.congested = ""
	}
	failed := errAddress
	var tried []string // addresses of members that did not send the blob
	for next, asked := append(s.neighbour(ctx, l), l.Address), 0; len(next) > 0 && asked < 2*maxFollowers; asked++ {
		address := next[0]
		next = next[1:]
		isHolder := address == l.Address
		if address == "" || address == s.f.me.Address || !isHolder && slices.Contains(tried, address) {
			continue
		}
		q := s.request(l, address, w)
		q.tried = tried
		if s.congested != "" {
			q.tried = append(slices.Clone(tried), s.congested)
		}
		err := s.trust(ctx, q)
		var stream *stream
		if err == nil {
			stream, err = s.f.open(ctx, q)
		}
		if err == nil {
			return stream, nil
		}
		if isHolder {
			failed = err
		}
		if ctx.Err() != nil || errors.Is(err, errLate) || errors.Is(err, errFar) || errors.Is(err, ErrFinished) {
			return nil, err
		}
		if full, ok := errors.AsType[*fullError](err); ok {
			s.name(full.followers)
			for _, f := range full.followers {
				if !slices.Contains(tried, f) {
					next = append(next, f)
				}
			}
			continue
		}
		if tried = append(tried, address); !isHolder && len(next) == 0 {
			next = append(next, l.Address) // the holder may name other followers by now, or send the blob itself
		}
	}
	return nil, failed
}

// neighbour returns the address of a member of this zone that has the whole blob. It looks for one
// only if the fetch has not begun, the holder is in another zone, and there is no bucket. It needs
// mu.
func (s *Share) neighbour(ctx context.Context, l Lease) []string {
	if s.role != undecided || s.bucket || s.f.zoneOf(l.Holder) == s.f.zone() {
		return nil
	}
	all := s.f.survey(ctx, s.request(l, "", Want{Most: -1}), s.f.neighbours(), s.f.patience.Presence)
	if i := slices.IndexFunc(all, holding.whole); i >= 0 {
		return []string{all[i].address}
	}
	return nil
}

// [Share.gave] adds a member to s.given, which has the members that have sent bytes.
func (s *Share) gave(member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given[member] = true
}

// Ended records how the fetch has ended; reason is nil if it succeeded. Ended returns true if the
// bytes were wrong and other members sent some of them. In that case, another fetch of the
// blob may succeed, because it asks only the registry.
func (s *Share) Ended(reason error) (again bool) {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f.unfollow(s.digest)
	if s.role == holder {
		s.f.ended(s.lease, reason)
	}
	again = (errors.Is(reason, cache.ErrCorrupt) || errors.Is(reason, cache.ErrSize)) && len(s.given) > 0
	if again {
		s.f.wrong(s.digest, slices.Collect(maps.Keys(s.given)), !s.asked)
		clear(s.given)
	}
	s.role = alone
	return again
}
