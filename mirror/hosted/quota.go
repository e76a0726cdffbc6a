package hosted

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// makeRoom frees at least as many bytes as the parameter short says. It drops the images that have
// not been used for the longest time. It returns ErrFull if it cannot free so many bytes, or if
// Options.Refuse is set.
func (s *Store) makeRoom(ctx context.Context, short int64) error {
	if s.opts.Refuse {
		return full(fmt.Sprintf("the quota of %s is used up", s.opts.Name))
	}
	for enough := s.contents.bytes() - short; s.contents.bytes() > enough; {
		now := time.Now()
		for _, r := range s.contents.all() { // drop expired blobs first, because they belong to no push
			s.contents.expireMembers(r, now)
		}
		if s.contents.bytes() <= enough {
			return nil
		}
		victims := s.contents.victims(now)
		if len(victims) == 0 {
			return full(fmt.Sprintf("the pushes in progress use all of the quota of %s", s.opts.Name))
		}
		for _, v := range victims {
			if err := s.evict(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// candidate is a manifest that may be dropped to make room.
type candidate struct {
	repo   string
	digest digest.Digest
	used   time.Time
	graph  graph // the graph of its repository
}

// victims returns the manifests to drop next: the manifests that have not been used for the longest
// time and whose removal frees bytes. It returns several manifests if they share bytes, such as one
// image in two repositories. A manifest stays if each of its blobs is needed by a manifest that was
// used later, or by a push under way.
func (c *contents) victims(now time.Time) []candidate {
	sim := simulation{uses: map[digest.Digest]int{}, needs: map[repoDigest]int{}, by: map[digest.Digest][]candidate{}, seen: map[repoDigest]bool{}}
	for _, one := range c.candidates(now) {
		if freed := c.removeCandidate(one, sim, now); freed != "" {
			return sim.by[freed]
		}
	}
	return nil
}

// candidates lists the manifests among which victims chooses, the least recently used first. It
// lists every tagged manifest, and each untagged manifest that no index names and whose subject the
// repository does not have. It leaves out untagged manifests pushed less than Options.Grace ago,
// because they may still wait for their index.
func (c *contents) candidates(now time.Time) (all []candidate) {
	for _, r := range c.all() {
		st := c.stateOf(r)
		g := st.graph()
		named, tagged := map[digest.Digest]bool{}, map[digest.Digest]bool{}
		for _, m := range st.manifests {
			for _, d := range m.manifests {
				named[d] = true
			}
		}
		for _, t := range st.tags {
			tagged[t.Digest] = true
		}
		for d, m := range st.manifests {
			if !tagged[d] && (named[d] || st.manifests[m.subject] != nil || now.Sub(m.pushed) < c.grace) {
				continue
			}
			all = append(all, candidate{r.name, d, m.lastUse(), g})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.used.Compare(b.used) })
	return all
}

// repoDigest is a manifest or blob of one repository.
type repoDigest struct {
	repo   string
	digest digest.Digest
}

// simulation is the content that would remain without some candidates. The fields uses and needs
// are the remaining counts of hold.uses and member.needs. The field by maps each blob to the
// removed candidates that needed it.
type simulation struct {
	uses  map[digest.Digest]int
	needs map[repoDigest]int
	by    map[digest.Digest][]candidate
	seen  map[repoDigest]bool // manifests that are counted already
}

// removeCandidate removes a candidate, and all manifests reachable from it, from the simulation. It
// returns a blob that nothing uses any more after that, or "". If there are several such blobs, it
// returns the one that the fewest removed candidates needed.
func (c *contents) removeCandidate(one candidate, sim simulation, now time.Time) (freed digest.Digest) {
	below := one.graph.reachable(map[digest.Digest]bool{one.digest: true})
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[one.repo]
	if r == nil {
		return ""
	}
	for d := range below {
		m := r.state.manifests[d]
		if m == nil || sim.seen[repoDigest{one.repo, d}] {
			continue
		}
		sim.seen[repoDigest{one.repo, d}] = true
		for _, b := range m.blobs {
			if c.removeNeed(r, b.Digest, one, sim, now) && (freed == "" || len(sim.by[b.Digest]) < len(sim.by[freed])) {
				freed = b.Digest
			}
		}
	}
	return freed
}

// removeNeed removes one need of a blob from the simulation, and reports whether nothing uses the
// blob any more after that. The caller holds mu.
func (c *contents) removeNeed(r *repo, d digest.Digest, one candidate, sim simulation, now time.Time) bool {
	member, held := r.members[d], c.holds[d]
	if member == nil || held == nil {
		return false
	}
	at := repoDigest{r.name, d}
	if _, begun := sim.needs[at]; !begun {
		sim.needs[at] = member.needs
	}
	if _, begun := sim.uses[d]; !begun {
		sim.uses[d] = held.uses
	}
	if by := sim.by[d]; len(by) == 0 || by[len(by)-1].digest != one.digest || by[len(by)-1].repo != one.repo {
		sim.by[d] = append(by, one)
	}
	if sim.needs[at]--; sim.needs[at] > 0 || now.Before(member.until) {
		return false
	}
	sim.uses[d]--
	return sim.uses[d] == 0
}

// evict drops a manifest with its tags. It also drops the manifests below the dropped one, unless a
// tag or another manifest still leads to them.
func (s *Store) evict(ctx context.Context, victim candidate) error {
	err := s.change(ctx, victim.repo, func(next *state) error {
		below := next.reachable(map[digest.Digest]bool{victim.digest: true})
		next.remove(victim.digest)
		others := map[digest.Digest]bool{}
		for _, t := range next.tags {
			others[t.Digest] = true
		}
		for d := range next.manifests {
			if !below[d] {
				others[d] = true
			}
		}
		live := next.reachable(others)
		for d := range below {
			if !live[d] {
				next.remove(d)
			}
		}
		return nil
	})
	if err == nil {
		s.dropped(victim.repo, victim.digest.String(), reasonQuota)
	}
	return err
}
