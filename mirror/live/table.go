// Package live shows the pulls and pushes that are under way. It groups the requests of clients: a
// pull is all requests of one client for one image, until the client has sent none for a while.
//
// When a request begins, it costs one look-up under a lock that few other requests share. After
// that, the table counts the bytes of the request without locks. Memory is bounded, whatever
// clients do: see [Table].
package live

import (
	"cmp"
	"context"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin/api"
)

const (
	shards = 32
	// perShard bounds the pulls and pushes of a shard, so that the table has at most 2048. Each pull
	// or push takes about 1 KiB, and 6 KiB at most, because the constants below bound its texts and
	// manifests.
	perShard = 64
	// maxText bounds a text in bytes. Tags, names of repositories, and digests are shorter.
	maxText = 256
	// maxManifests bounds the manifests of one pull. A pull rarely reaches this bound: few indexes
	// name more manifests, and a client pulls only one or two of them.
	maxManifests = 16
	// maxLayers bounds how many layers of a manifest, and how many manifests of an index, the table
	// recognises.
	maxLayers = 512
	// maxParts bounds the parts of all shapes (see [shapes.acquire]). A layer takes 16 bytes.
	maxParts = 128 << 10
	// window is the number of seconds over which rates are measured.
	window = 5
)

// Owner is the client of a request, and the repository that the request is for. Pulls and pushes of
// different owners are never merged.
type Owner struct {
	Addr netip.Addr
	// User is empty for an anonymous client.
	User, Upstream, Repository string
}

// Options configure [New].
type Options struct {
	// Idle is how long the table shows a pull or a push after its last request; 0 means a minute.
	Idle time.Duration
	// OnPull, if not nil, is called when a pull of an image has ended. It must not block.
	OnPull func(Ended)
}

// Ended is a pull that has ended.
type Ended struct {
	api.LivePull
	// ManifestSize is the size in bytes of the manifest that LivePull.Digest names.
	ManifestSize int64
}

// Table has the pulls and pushes under way. Its methods may be called concurrently. On a nil Table,
// only Track may be called. A Table has at most 2048 pulls and pushes, and uses at most 16 MiB of
// memory. In a full shard, a new entry replaces another: see [shard.displace].
type Table struct {
	o    Options
	seed maphash.Seed
	// now is the time at the last tick of Run, in nanoseconds since 1970. When a request begins or
	// ends, the table reads this field, because reading the clock would double the table's own work.
	// The field need not be exact, because the idle time of an entry may be wrong by a second.
	now    atomic.Int64
	ids    atomic.Uint64
	shards [shards]shard
	shapes shapes

	pulls, pushes prometheus.GaugeFunc
	displaced     prometheus.Counter
	lost          atomic.Uint64 // the value of displaced
	watchers      atomic.Int32
}

// shard has the pulls and pushes of some owners.
type shard struct {
	mu     sync.Mutex // guards the fields below, and the fields of entries except the atomic ones
	owners map[uint64]*owned
	n      int // number of pulls and pushes
}

// owned has the entries of one owner. The newest entries are last.
type owned struct {
	Owner
	pulls  []*pull
	pushes []*push
}

// New returns an empty Table.
func New(o Options) *Table {
	o.Idle = cmp.Or(o.Idle, time.Minute)
	t := &Table{o: o, seed: maphash.MakeSeed(), shapes: shapes{byDigest: map[uint64]*shape{}}}
	for i := range t.shards {
		t.shards[i].owners = map[uint64]*owned{}
	}
	t.now.Store(time.Now().UnixNano())
	t.pulls = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_live_pulls",
		Help: "Images that clients are pulling, or were pulling within the last minute."}, func() float64 { n, _ := t.count(); return n })
	t.pushes = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dray_live_pushes",
		Help: "Images that clients are pushing, or were pushing within the last minute."}, func() float64 { _, n := t.count(); return n })
	t.displaced = prometheus.NewCounter(prometheus.CounterOpts{Name: "dray_live_displaced_total",
		Help: "Pulls and pushes that dray top stopped showing early, because there were too many at a time."})
	return t
}

// Collectors returns the metrics.
func (t *Table) Collectors() []prometheus.Collector {
	return []prometheus.Collector{t.pulls, t.pushes, t.displaced}
}

func (t *Table) count() (pulls, pushes float64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, o := range s.owners {
			for _, p := range o.pulls {
				if p.got {
					pulls++
				}
			}
			pushes += float64(len(o.pushes))
		}
		s.mu.Unlock()
	}
	return pulls, pushes
}

// Run measures rates, and ends pulls and pushes that are idle, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			t.tick(now)
		}
	}
}

// End ends all pulls and pushes that have no request under way. dray calls it when it stops.
func (t *Table) End() {
	for i := range t.shards {
		t.report(t.shards[i].tick(t, math.MaxInt64))
	}
}

// tick does what Run does once a second.
func (t *Table) tick(now time.Time) {
	t.now.Store(now.UnixNano())
	before := now.Add(-t.o.Idle).UnixNano()
	for i := range t.shards {
		t.report(t.shards[i].tick(t, before))
	}
}

// tick measures the rates of a shard, and removes the entries that were idle since cutoff, in
// nanoseconds since 1970. It returns the pulls that it removed.
func (s *shard) tick(t *Table, cutoff int64) (ended []Ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.owners {
		o.pulls = s.keep(o.pulls, func(p *pull) bool {
			p.measure(p.sum())
			if !p.idleSince(cutoff) {
				return true
			}
			ended = append(ended, o.ended(t, p)...)
			return false
		})
		kept := o.pushes[:0]
		for _, p := range o.pushes {
			p.measure(p.received.Load())
			if p.idleSince(cutoff) {
				s.n--
				continue
			}
			kept = append(kept, p)
		}
		clear(o.pushes[len(kept):])
		o.pushes = kept
		s.drop(key, o)
	}
	return ended
}

// keep returns the pulls p for which stays(p) is true. The caller holds mu.
func (s *shard) keep(pulls []*pull, stays func(*pull) bool) []*pull {
	kept := pulls[:0]
	for _, p := range pulls {
		if stays(p) {
			kept = append(kept, p)
		} else {
			s.n--
		}
	}
	clear(pulls[len(kept):])
	return kept
}

// drop removes an owner if it has no entries. The caller holds mu.
func (s *shard) drop(key uint64, o *owned) {
	if len(o.pulls)+len(o.pushes) == 0 {
		delete(s.owners, key)
	}
}

// report calls OnPull for each ended pull that has a manifest. The caller holds no lock.
func (t *Table) report(ended []Ended) {
	if t.o.OnPull == nil {
		return
	}
	for _, p := range ended {
		if p.Digest != "" {
			t.o.OnPull(p)
		}
	}
}

// hashed has the fields of an Owner without the pointer in Addr, because [maphash.Comparable]
// allocates if its argument has pointers other than those of strings.
type hashed struct {
	addr                       [16]byte
	user, upstream, repository string
}

// shardOf shortens the texts of an owner to maxText. It returns the owner's key and shard.
func (t *Table) shardOf(o *Owner) (uint64, *shard) {
	if len(o.User) > maxText {
		o.User = o.User[:maxText]
	}
	if len(o.Repository) > maxText {
		o.Repository = o.Repository[:maxText]
	}
	key := maphash.Comparable(t.seed, hashed{o.Addr.As16(), o.User, o.Upstream, o.Repository})
	return key, &t.shards[key%shards]
}

// id returns a number that stands for a digest or another text. Clients cannot know the seed, so
// they cannot find two texts with the same number.
func (t *Table) id(text string) uint64 { return maphash.String(t.seed, text) }

// of(key, o) returns the entries of the owner o, or nil. The caller holds mu.
func (s *shard) of(key uint64, o *Owner) *owned {
	if all := s.owners[key]; all != nil && all.Owner == *o {
		return all
	}
	return nil
}

// owned makes room for one more entry, and returns the entries of the owner. It also returns the
// pulls that it removed to make room. The caller holds mu, and adds the entry.
func (s *shard) owned(t *Table, key uint64, o *Owner) (all *owned, gone []Ended) {
	if s.n >= perShard {
		gone = s.displace(t)
	}
	s.n++
	if all = s.of(key, o); all != nil {
		return all, gone
	}
	if other := s.owners[key]; other != nil { // another owner with the same key; the chance is 1 in 2^64
		for _, p := range other.pulls {
			gone = append(gone, other.ended(t, p)...)
		}
		s.n -= len(other.pulls) + len(other.pushes)
	}
	all = &owned{Owner: Owner{o.Addr, strings.Clone(o.User), o.Upstream, strings.Clone(o.Repository)}}
	s.owners[key] = all
	return all, gone
}

// displace removes the entry that was idle longest, and counts it as displaced. If the shard has
// entries with nothing but HEAD requests, which are no pulls, displace removes one of these instead
// and does not count it. The caller holds mu.
func (s *shard) displace(t *Table) (ended []Ended) {
	var oldest, headed *entry
	for _, o := range s.owners {
		for _, p := range o.pulls {
			if p.got {
				oldest = longerIdle(oldest, &p.entry)
			} else {
				headed = longerIdle(headed, &p.entry)
			}
		}
		for _, p := range o.pushes {
			oldest = longerIdle(oldest, &p.entry)
		}
	}
	if headed != nil {
		oldest = headed
	} else {
		t.displaced.Inc()
		t.lost.Add(1)
	}
	for key, o := range s.owners {
		o.pulls = s.keep(o.pulls, func(p *pull) bool {
			if &p.entry != oldest {
				return true
			}
			ended = append(ended, o.ended(t, p)...)
			return false
		})
		for i, p := range o.pushes {
			if &p.entry == oldest {
				o.pushes = slices.Delete(o.pushes, i, i+1)
				s.n--
				break
			}
		}
		s.drop(key, o)
	}
	return ended
}

// longerIdle returns the entry that was idle for the longer time. An entry with a request under way
// counts as less idle than an entry without one.
func longerIdle(a, b *entry) *entry {
	switch {
	case a == nil:
		return b
	case (a.underWay.Load() > 0) != (b.underWay.Load() > 0):
		if a.underWay.Load() > 0 {
			return b
		}
		return a
	case b.last.Load() < a.last.Load():
		return b
	}
	return a
}
