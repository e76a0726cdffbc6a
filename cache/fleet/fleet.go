package fleet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
)

const (
	// maxIdle bounds the connections to one other member that are kept for further requests.
	maxIdle = 2
	// continueWithin is how long the sender of a request with "Expect: 100-continue" waits for the
	// other member to accept the body.
	continueWithin = time.Minute
	// maxLeases bounds the leases of one member. At this bound, the member drops the lease of the blob
	// that it fetched first. If all leased blobs are still being fetched, the member fetches further
	// blobs without a lease.
	maxLeases = 4096
	// finishedFor is how long a member keeps the lease of a blob after it has fetched the blob, so
	// that other members find it.
	finishedFor = 10 * time.Minute
	// storePause is the pause after a failure of the store: for this time, fetches do not ask the
	// store for leases.
	storePause = 2 * time.Second
)

// Patience says how long a member waits for another member, and for the store of leases.
type Patience struct {
	// Dial bounds the time until there is a connection; 0 means 1 s.
	Dial time.Duration
	// Stall is how long this member waits for bytes of a stream before it asks the other member for
	// its progress; 0 means 2 s.
	Stall time.Duration
	// Begin bounds the time until the answer to a request for a blob begins; 0 means 3 s. A member
	// that exceeds it does not count as dead: perhaps the registry is slow for that member, but not
	// for this one.
	Begin time.Duration
	// Answer bounds the time until the other member answers the question about its progress; 0 means
	// 500 ms. A member that does not answer counts as dead.
	Answer time.Duration
	// Store bounds one request to the store of leases; 0 means 300 ms.
	Store time.Duration
	// Presence bounds how long this member waits for other members to report that they have a blob,
	// before it asks the registry; 0 means 200 ms.
	Presence time.Duration
	// Silence bounds the time without a byte from a member that works on a question about a
	// manifest; 0 means 300 ms. The member sends spaces as signs of life. Begin bounds the whole time
	// until the member has answered.
	Silence time.Duration
	// Far bounds how long a fetch repeats its request while the holder of the lease answers that the
	// holder is no nearer to the registry than this member; 0 means 1 s. A holder that was a follower
	// may give this answer for a moment after it has taken the lease. After Far, the fetch asks the
	// registry.
	Far time.Duration
}

func (p Patience) withDefaults() Patience {
	return Patience{
		Dial: cmp.Or(p.Dial, time.Second), Stall: cmp.Or(p.Stall, 2*time.Second), Begin: cmp.Or(p.Begin, 3*time.Second),
		Answer: cmp.Or(p.Answer, 500*time.Millisecond), Store: cmp.Or(p.Store, 300*time.Millisecond),
		Presence: cmp.Or(p.Presence, 200*time.Millisecond), Silence: cmp.Or(p.Silence, 300*time.Millisecond),
		Far: cmp.Or(p.Far, time.Second),
	}
}

// Options are what a member needs for its part in a fleet.
type Options struct {
	// Self is this member. If Self.Protocol is 0, [New] sets it to the result of [Protocol].
	Self   Member
	Leases Leases
	// Cache has the blobs that other members may read.
	Cache *cache.Cache
	// Upstreams returns the description of this member's upstreams for other members; nil means none.
	// The function must not block.
	Upstreams func() Upstreams
	// Keys returns the keys that are valid now.
	Keys     func() *Keys
	Patience Patience
	// Grace bounds how long other members can read on when this member stops. 0 means 30 s, which is
	// also the maximum.
	Grace  time.Duration
	Logger *slog.Logger
}

// Fleet is this member's part in a fleet. All methods may be called concurrently.
type Fleet struct {
	o Options
	*peers
	*readers
	*positions
	// interrupted ends when Interrupt is called.
	interrupted context.Context
	interrupt   context.CancelFunc
	most        int // the maximum number of leases
	working     underWay

	mu       sync.Mutex // guards the fields below
	held     map[digest.Digest]*lease
	handlers map[string]http.Handler // by the beginning of the path
	storeAt  time.Time               // fetches do not ask the store before this time; zero while the store answers
	leaving  bool
	changed  chan struct{} // has an entry if leases are to be released
}

// lease is a lease of this member.
type lease struct {
	Lease
	finished time.Time // zero while the blob is being fetched
	over     bool      // to be released
}

// New returns this member's part in a fleet. It sends no requests yet.
func New(o Options) *Fleet {
	o.Self.Protocol = cmp.Or(o.Self.Protocol, Protocol())
	o.Patience = o.Patience.withDefaults()
	o.Grace = min(cmp.Or(o.Grace, maxGrace), maxGrace)
	log := cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	f := &Fleet{o: o, most: maxLeases, held: map[digest.Digest]*lease{}, changed: make(chan struct{}, 1)}
	m := newMetrics(func() int { return len(f.Live()) }, f.leases, func() int { return f.readers.streams() })
	f.peers = newPeers(o, m, log)
	f.readers = &readers{own: o.Self.Address, here: f.zone, all: map[digest.Digest]map[reader]int{}}
	f.positions = &positions{all: map[digest.Digest]position{}}
	blobs := &blobServer{cache: o.Cache, readers: f.readers, position: f.positionOf, m: m, log: log}
	f.handlers = map[string]http.Handler{blobPath: blobs}
	f.interrupted, f.interrupt = context.WithCancel(context.Background())
	return f
}

// PatienceOf returns how long this member waits for other members.
func PatienceOf(f *Fleet) Patience { return f.o.Patience }

// Collectors returns the metrics of the fleet.
func (f *Fleet) Collectors() []prometheus.Collector { return f.m.collectors() }

// Members returns the members that are alive according to the store.
func (f *Fleet) Members(ctx context.Context) ([]Member, error) { return f.o.Leases.Members(ctx) }

// Run works until ctx ends: it renews the leases of this member, releases the leases that are over,
// and reads from the store which members are alive. When ctx ends, it releases all leases.
func (f *Fleet) Run(ctx context.Context) error {
	defer f.client.CloseIdleConnections()
	tick := time.NewTicker(RenewEvery)
	defer tick.Stop()
	f.renew(ctx)
	for {
		select {
		case <-tick.C:
			f.release(ctx)
			f.renew(ctx)
		case <-f.changed:
			f.release(ctx)
		case <-ctx.Done():
			f.leave(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// [Fleet.leave] makes this member take no more leases, and releases all of its leases. Members that
// read from this member can read on.
func (f *Fleet) leave(ctx context.Context) {
	f.mu.Lock()
	f.leaving = true
	for _, l := range f.held {
		l.over = true
	}
	f.mu.Unlock()
	f.release(ctx)
	ctx, cancel := context.WithTimeout(ctx, f.o.Patience.Store)
	defer cancel()
	if err := f.o.Leases.Leave(ctx, f.o.Self.ID); err != nil {
		f.log.Debug("fleet: cannot leave", "error", err)
	}
}

// Self returns this member as other members see it now.
func (f *Fleet) Self() Member { return f.self() }

// renew extends the leases, and reads from the store which members are alive. It drops the leases
// that another member has taken. This member's fetches of these blobs go on, so the registry sends
// the blobs twice.
func (f *Fleet) renew(ctx context.Context) {
	f.mu.Lock()
	if f.leaving {
		f.mu.Unlock()
		return
	}
	var all []Lease
	sent := map[digest.Digest]int64{}
	for d, l := range f.held {
		if !l.over {
			all, sent[d] = append(all, l.Lease), l.Generation
		}
	}
	f.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, 4*f.o.Patience.Store)
	defer cancel()
	lost, err := f.o.Leases.Renew(bounded, f.Self(), all)
	if err == nil {
		err = f.look(bounded)
	}
	f.storeAnswered(ctx, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range lost {
		if l := f.held[d]; l != nil && l.Generation == sent[d] { // this member may have taken the lease again meanwhile
			delete(f.held, d)
		}
	}
}

// release releases the leases that are over: the leases of failed fetches, of blobs that are gone,
// and of blobs that were fetched at least finishedFor ago. After leave, all leases are over. If the
// store fails, the leases expire by themselves.
func (f *Fleet) release(ctx context.Context) {
	var over []Lease
	f.mu.Lock()
	for d, l := range f.held {
		if _, whole := f.o.Cache.Stat(d); whole && l.finished.IsZero() {
			l.finished = time.Now()
		}
		if _, here := f.o.Cache.Progress(d, 0); l.over || !here || !l.finished.IsZero() && time.Since(l.finished) >= finishedFor {
			over = append(over, l.Lease)
			delete(f.held, d)
		}
	}
	f.mu.Unlock()
	if len(over) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 4*f.o.Patience.Store)
	defer cancel()
	if err := f.o.Leases.Release(ctx, over); err != nil {
		f.log.Debug("fleet: cannot release leases", "leases", len(over), "error", err)
	}
}

var errStore = errors.New("the store of leases did not answer a moment ago")

// take takes the lease of a blob, or returns the lease of another member. If the store failed less
// than storePause ago, take does not ask it, and returns errStore.
func (f *Fleet) take(ctx context.Context, d digest.Digest, failedGen int64) (Lease, error) {
	f.mu.Lock()
	wait := time.Now().Before(f.storeAt)
	f.mu.Unlock()
	if wait {
		return Lease{}, errStore
	}
	bounded, cancel := context.WithTimeout(ctx, f.o.Patience.Store)
	defer cancel()
	l, err := f.o.Leases.Take(bounded, d, f.self(), failedGen)
	f.storeAnswered(ctx, err)
	if err != nil {
		return Lease{}, err
	}
	if l.Holder == f.o.Self.ID {
		f.mu.Lock()
		left := f.leaving
		f.held[d] = &lease{Lease: l, over: left}
		f.mu.Unlock()
		f.unfollow(d)
		if left { // this member began to leave after mayTake, and Run no longer releases leases
			f.release(context.WithoutCancel(ctx))
		}
	}
	return l, nil
}

// storeAnswered records whether the store has answered; err is nil if it has. It logs each change.
// If ctx has ended, it does nothing: an error then says nothing about the store.
func (f *Fleet) storeAnswered(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	was := f.storeAt.IsZero()
	if err == nil {
		f.storeAt = time.Time{}
	} else {
		f.storeAt = time.Now().Add(storePause)
	}
	f.mu.Unlock()
	switch {
	case err != nil && was:
		f.log.Warn("the leases of the fleet cannot be read, so this member fetches blobs for itself", "error", err)
	case err == nil && !was:
		f.log.Info("the leases of the fleet can be read again")
	}
}

// mayTake reports whether this member may take the lease of a blob. If ok is false, the member
// fetches the blob alone, and reason is the label for metrics.
func (f *Fleet) mayTake(d digest.Digest) (reason string, ok bool) {
	_, flying := f.o.Cache.Progress(d, 0)
	wrong := f.isAlone(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.held[d]
	switch {
	case wrong:
		return aloneDigest, false
	// In these cases, other members cannot read the bytes from this fetch: this member is leaving, the
	// cache has no flight of the blob, or another fetch of this member has the lease.
	case f.leaving || !flying, now != nil && !now.over && now.finished.IsZero():
		return aloneUncached, false
	case len(f.held) >= f.most && !f.makeRoom():
		return aloneLeases, false
	}
	return "", true
}

// makeRoom drops the lease of the blob that was fetched first. The lease expires soon, because
// nobody renews it. makeRoom returns false if all leased blobs are still being fetched. The caller
// holds mu.
func (f *Fleet) makeRoom() bool {
	var first *lease
	for _, l := range f.held {
		if !l.finished.IsZero() && (first == nil || l.finished.Before(first.finished)) {
			first = l
		}
	}
	if first == nil {
		return false
	}
	delete(f.held, first.Digest)
	return true
}

func (f *Fleet) leases() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// ended records the end of a fetch under a lease; reason is nil if the fetch succeeded.
func (f *Fleet) ended(l Lease, reason error) {
	f.mu.Lock()
	if now := f.held[l.Digest]; now != nil && now.Generation == l.Generation {
		if now.finished = time.Now(); reason != nil {
			now.over = true
		}
	}
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// look asks the store which members are alive. If the store fails, the members that it last named
// remain.
func (f *Fleet) look(ctx context.Context) error {
	all, err := f.o.Leases.Members(ctx)
	if err == nil {
		f.update(all)
	}
	return err
}

// positionOf returns how far this member is from the registry for a blob. A hop is one stream from
// member to member. A member that has the lease has hop 0, and the generation of the lease. A
// member that reads the blob from another member has the position of its own flight. Any other
// member has the whole blob, or fetches it without other members: it has hop 0, and the generation
// that the request names (requestGen).
func (f *Fleet) positionOf(d digest.Digest, whole bool, requestGen int64) position {
	f.mu.Lock()
	l := f.held[d]
	f.mu.Unlock()
	if l != nil {
		return position{l.Generation, 0}
	}
	if at, follows := f.positions.of(d); follows && !whole {
		return at
	}
	return position{requestGen, 0}
}
