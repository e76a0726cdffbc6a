package hosted

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// makeRoom frees at least the given number of bytes. It drops the images that have not been used
// for the longest time. It returns ErrFull if it cannot free so many bytes, or if Options.Refuse is
// set.
func (s *Store) makeRoom(ctx context.Context, shortage int64) error {
	if s.opts.Refuse {
		return full(fmt.Sprintf("the quota of %s is used up", s.opts.Name))
	}
	enough := s.contents.bytes() - shortage
	if enough < 0 {
		return full(fmt.Sprintf("it has more bytes than the whole quota of %s", s.opts.Name))
	}
	for s.contents.bytes() > enough {
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
	rest   *rest
}

// rest is what remains of a repository after some candidates are removed.
type rest struct {
	graph
	tagged map[digest.Digest]bool // manifests with a tag
	// above has, for each manifest, the indexes that name it, and its subject, even if these are in
	// rest.gone.
	above map[digest.Digest][]digest.Digest
	gone  map[digest.Digest]bool
}

// victims returns the manifests to drop next: those that have not been used for the longest time
// and whose removal frees bytes. It returns several manifests only if none of them alone frees a
// blob that they share, as with one image in two repositories. Of several such blobs, it chooses
// the one that the fewest manifests share. A manifest stays if each of its blobs is needed by a
// manifest that was used later, or by a push under way.
func (c *contents) victims(now time.Time) (least []*candidate) {
	sim := simulation{uses: map[digest.Digest]int{}, needs: map[repoDigest]int{}}
	all := c.candidates(now)
	for i, one := range all {
		freed := c.removeCandidate(one, sim, now)
		if len(freed) == 0 {
			continue
		}
		for _, by := range all[:i+1] {
			for d := range by.below() {
				for _, b := range by.rest.st.manifests[d].blobs {
					if of, ok := freed[b.Digest]; ok && (len(of) == 0 || of[len(of)-1] != by) {
						freed[b.Digest] = append(of, by)
					}
				}
			}
		}
		for _, of := range freed {
			if least == nil || len(of) < len(least) {
				least = of
			}
		}
		return least
	}
	return nil
}

// candidates lists the manifests that the function victims chooses from, the least recently used
// first. It lists every tagged manifest, and each untagged manifest that no index names and whose
// subject the repository does not have. It leaves out untagged manifests pushed less than
// Options.Grace ago, because they may still wait for their index.
func (c *contents) candidates(now time.Time) (all []*candidate) {
	for _, r := range c.all() {
		st := c.stateOf(r)
		rest := &rest{st.graph(), map[digest.Digest]bool{}, map[digest.Digest][]digest.Digest{}, map[digest.Digest]bool{}}
		for d, m := range st.manifests {
			for _, named := range m.manifests {
				rest.above[named] = append(rest.above[named], d)
			}
			if st.manifests[m.subject] != nil {
				rest.above[d] = append(rest.above[d], m.subject)
			}
		}
		for _, t := range st.tags {
			rest.tagged[t.Digest] = true
		}
		for d, m := range st.manifests {
			if !rest.tagged[d] && (len(rest.above[d]) > 0 || now.Sub(m.pushed) < c.grace) {
				continue
			}
			all = append(all, &candidate{r.name, d, m.lastUse(), rest})
		}
	}
	slices.SortFunc(all, func(a, b *candidate) int { return a.used.Compare(b.used) })
	return all
}

// repoDigest is a blob of one repository.
type repoDigest struct {
	repo   string
	digest digest.Digest
}

// simulation has the counts that would remain without some candidates: uses those of hold.uses, and
// needs those of member.needs. Both lack the blobs whose counts have not changed.
type simulation struct {
	uses  map[digest.Digest]int
	needs map[repoDigest]int
}

// below returns the candidate and all manifests reachable from it.
func (one *candidate) below() map[digest.Digest]bool {
	return one.rest.reachable(map[digest.Digest]bool{one.digest: true})
}

// removeCandidate removes a candidate from the simulation, as evict would. It returns the blobs
// that nothing uses any more after that, as keys whose values are nil.
func (c *contents) removeCandidate(one *candidate, sim simulation, now time.Time) map[digest.Digest][]*candidate {
	rest, below, stay := one.rest, one.below(), map[digest.Digest]bool{}
	delete(rest.tagged, one.digest)
	for d := range below {
		if rest.tagged[d] || slices.ContainsFunc(rest.above[d], func(a digest.Digest) bool { return !below[a] && !rest.gone[a] }) {
			stay[d] = true
		}
	}
	live := rest.reachable(stay)
	freed := map[digest.Digest][]*candidate{}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[one.repo]
	if r == nil {
		return nil
	}
	for d := range below {
		m := r.state.manifests[d]
		if m == nil || live[d] || rest.gone[d] {
			continue
		}
		rest.gone[d] = true
		for _, b := range m.blobs {
			if c.removeNeed(r, b.Digest, sim, now) {
				freed[b.Digest] = nil
			}
		}
	}
	return freed
}

// removeNeed removes one need of a blob from the simulation, and reports whether nothing uses the
// blob any more after that. The caller holds mu.
func (c *contents) removeNeed(r *repo, d digest.Digest, sim simulation, now time.Time) bool {
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
	if sim.needs[at]--; sim.needs[at] > 0 || now.Before(member.until) {
		return false
	}
	sim.uses[d]--
	return sim.uses[d] == 0
}

// evict drops the tags of a manifest. It also drops this manifest, and each manifest below it, if
// no tag and no other manifest leads to it any more.
func (s *Store) evict(ctx context.Context, victim *candidate) error {
	err := s.change(ctx, victim.repo, func(next *state) error {
		below := next.reachable(map[digest.Digest]bool{victim.digest: true})
		others := map[digest.Digest]bool{}
		for _, t := range next.tags {
			if t.Digest != victim.digest {
				others[t.Digest] = true
			}
		}
		for d := range next.manifests {
			if !below[d] {
				others[d] = true
			}
		}
		live := next.reachable(others)
		maps.DeleteFunc(next.tags, func(_ string, t tag) bool { return t.Digest == victim.digest })
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
