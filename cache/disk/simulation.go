package disk

import "github.com/opencontainers/go-digest"

// Simulation computes which requests a directory with a given quota would answer from its blobs. It
// evicts in the same order as a [Dir], but needs no files and no clients, and ignores time. Tools
// that compare quotas replay a log of requests against it. It is not safe for concurrent use.
type Simulation struct {
	policy    policy
	index     map[digest.Digest]*entry
	max, used int64
}

// Pools says in how many pools a Simulation holds its blobs.
type Pools int

// The pools of a Simulation.
const (
	TwoPools Pools = iota // small blobs have a pool of their own, as in a directory
	OnePool               // small and large blobs share one pool, to measure the difference
)

// NewSimulation returns an empty Simulation with a quota of maxBytes. The Simulation rounds the
// size of each blob up to whole blocks, as a Dir does for Options.MaxBytes.
func NewSimulation(maxBytes int64, pools Pools) *Simulation {
	s := &Simulation{policy: newPolicy(maxBytes), index: map[digest.Digest]*entry{}, max: maxBytes}
	if pools == OnePool {
		s.policy.small = s.policy.large
	}
	return s
}

// Request asks for the blob with the digest dg and the given size in bytes, and reports whether the
// Simulation held it. The blob is held from then on until it is evicted, unless it is larger than
// the quota.
func (s *Simulation) Request(dg digest.Digest, size int64) (hit bool) {
	if e := s.index[dg]; e != nil {
		e.hit()
		return true
	}
	e := &entry{key: keyOf(dg), size: size}
	if e.blocks() > s.max {
		return false
	}
	for clock := s.policy.clock(); s.used+e.blocks() > s.max; {
		gone, _ := clock.victim(size, func(*entry) bool { return false })
		delete(s.index, gone.digest())
		s.used -= gone.blocks()
	}
	s.policy.add(e)
	s.index[dg] = e
	s.used += e.blocks()
	return false
}
