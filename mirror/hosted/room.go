package hosted

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// makeRoom drops what was not used for the longest time, until so many bytes are free, or returns ErrFull.
func (s *Store) makeRoom(ctx context.Context, short int64) error {
	if s.opts.Refuse {
		return full(fmt.Sprintf("%s is full", s.opts.Name))
	}
	for enough := s.bytes() - short; s.bytes() > enough; {
		now := time.Now()
		for _, r := range s.all() { // blobs whose time is up are nobody's
			s.expireMembers(r, now)
		}
		if s.bytes() <= enough {
			return nil
		}
		victims := s.victims(now)
		if len(victims) == 0 {
			return full(fmt.Sprintf("%s is full of what is being pushed", s.opts.Name))
		}
		for _, v := range victims {
			if err := s.expel(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// candidate is a manifest that may have to go for others.
type candidate struct {
	repo   string
	digest digest.Digest
	used   time.Time
	graph  graph // of its repository
}

// victims finds what was not used for the longest time and gives room when it goes: one manifest, or several that have bytes in common, as
// when one image is in two repositories. What gives no room, because a newer one or a push under way needs the same, stays.
func (s *Store) victims(now time.Time) []candidate {
	left := balance{uses: map[digest.Digest]int{}, needs: map[share]int{}, by: map[digest.Digest][]candidate{}, seen: map[share]bool{}}
	for _, c := range s.candidates(now) {
		if freed := s.without(c, left, now); freed != "" {
			return left.by[freed]
		}
	}
	return nil
}

// candidates are the manifests that stand by themselves, those first that were not used for the longest time: no index names
// them, and they refer to nothing that is here. One without a tag that was pushed within Grace waits for its index.
func (s *Store) candidates(now time.Time) (all []candidate) {
	for _, r := range s.all() {
		st := s.stateOf(r)
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
			if !tagged[d] && (named[d] || st.manifests[m.subject] != nil || now.Sub(m.pushed) < s.opts.Grace) {
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

// balance is what would be left without the candidates so far: uses of what is held, needs of what repositories have, and who has ended which.
type balance struct {
	uses  map[digest.Digest]int
	needs map[share]int
	by    map[digest.Digest][]candidate
	seen  map[share]bool // manifests that are counted already
}

// without takes a candidate out of the balance, with what it leads to, and returns the blob that nobody uses any more then, or "": of several the one
// that the fewest have used.
func (s *Store) without(c candidate, left balance, now time.Time) (freed digest.Digest) {
	below := c.graph.reachable(map[digest.Digest]bool{c.digest: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[c.repo]
	if r == nil {
		return ""
	}
	for d := range below {
		m := r.now.manifests[d]
		if m == nil || left.seen[share{c.repo, d}] {
			continue
		}
		left.seen[share{c.repo, d}] = true
		for _, b := range m.blobs {
			if s.unneed(r, b.Digest, c, left, now) && (freed == "" || len(left.by[b.Digest]) < len(left.by[freed])) {
				freed = b.Digest
			}
		}
	}
	return freed
}

// unneed takes one need of a blob out of the balance, and reports whether nobody uses it any more then. Needs mu.
func (s *Store) unneed(r *repo, d digest.Digest, c candidate, left balance, now time.Time) bool {
	member, held := r.members[d], s.holds[d]
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
	if by := left.by[d]; len(by) == 0 || by[len(by)-1].digest != c.digest || by[len(by)-1].repo != c.repo {
		left.by[d] = append(by, c)
	}
	if left.needs[at]--; left.needs[at] > 0 || now.Before(member.until) {
		return false
	}
	left.uses[d]--
	return left.uses[d] == 0
}

// expel drops a manifest with its tags, and what nothing else leads to after that.
func (s *Store) expel(ctx context.Context, victim candidate) error {
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
