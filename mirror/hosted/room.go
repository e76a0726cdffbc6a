package hosted

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// makeRoom drops what was not used for the longest time, until so many bytes are free, or returns
// ErrFull.
func (s *Store) makeRoom(ctx context.Context, short int64) error {
	if s.opts.Refuse {
		return full(fmt.Sprintf("%s is full", s.opts.Name))
	}
	for enough := s.contents.bytes() - short; s.contents.bytes() > enough; {
		now := time.Now()
		for _, r := range s.contents.all() { // blobs whose time is up are nobody's
			s.contents.expireMembers(r, now)
		}
		if s.contents.bytes() <= enough {
			return nil
		}
		victims := s.contents.victims(now)
		if len(victims) == 0 {
			return full(fmt.Sprintf("%s is full of what is being pushed", s.opts.Name))
		}
		for _, v := range victims {
			if err := s.evict(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// candidate is a manifest that may have to go for others.
type candidate struct {
	repo   string
	digest digest.Digest
	used   time.Time
	graph  graph // of its repository
}

// victims finds what was not used for the longest time and gives room when it goes: one manifest,
// or several that have bytes in common, as when one image is in two repositories. What gives no
// room, because a newer one or a push under way needs the same, stays.
func (c *contents) victims(now time.Time) []candidate {
	left := balance{uses: map[digest.Digest]int{}, needs: map[share]int{}, by: map[digest.Digest][]candidate{}, seen: map[share]bool{}}
	for _, one := range c.candidates(now) {
		if freed := c.without(one, left, now); freed != "" {
			return left.by[freed]
		}
	}
	return nil
}

// candidates are the manifests that stand by themselves, those first that were not used for the
// longest time: no index names them, and they refer to nothing that is here. One without a tag that
// was pushed within Grace waits for its index.
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

// share is what a repository has of a digest: a manifest, or a blob.
type share struct {
	repo   string
	digest digest.Digest
}

// balance is what would be left without the candidates so far: uses of what is held, needs of what
// repositories have, and who has ended which.
type balance struct {
	uses  map[digest.Digest]int
	needs map[share]int
	by    map[digest.Digest][]candidate
	seen  map[share]bool // manifests that are counted already
}

// without takes a candidate out of the balance, with what it leads to, and returns the blob that
// nobody uses any more then, or "": of several the one that the fewest have used.
func (c *contents) without(one candidate, left balance, now time.Time) (freed digest.Digest) {
	below := one.graph.reachable(map[digest.Digest]bool{one.digest: true})
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[one.repo]
	if r == nil {
		return ""
	}
	for d := range below {
		m := r.now.manifests[d]
		if m == nil || left.seen[share{one.repo, d}] {
			continue
		}
		left.seen[share{one.repo, d}] = true
		for _, b := range m.blobs {
			if c.unneed(r, b.Digest, one, left, now) && (freed == "" || len(left.by[b.Digest]) < len(left.by[freed])) {
				freed = b.Digest
			}
		}
	}
	return freed
}

// unneed takes one need of a blob out of the balance, and reports whether nobody uses it any more
// then. Needs mu.
func (c *contents) unneed(r *repo, d digest.Digest, one candidate, left balance, now time.Time) bool {
	member, held := r.members[d], c.holds[d]
	if member == nil || held == nil {
		return false
	}
	at := share{r.name, d}
	if _, begun := left.needs[at]; !begun {
		left.needs[at] = member.needs
	}
	if _, begun := left.uses[d]; !begun {
		left.uses[d] = held.uses
	}
	if by := left.by[d]; len(by) == 0 || by[len(by)-1].digest != one.digest || by[len(by)-1].repo != one.repo {
		left.by[d] = append(by, one)
	}
	if left.needs[at]--; left.needs[at] > 0 || now.Before(member.until) {
		return false
	}
	left.uses[d]--
	return left.uses[d] == 0
}

// evict drops a manifest with its tags, and what nothing else leads to after that.
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
