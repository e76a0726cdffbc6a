package hosted

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Rule says for how long, or how many, tags are kept. Patterns are whole names in which "*" stands for any characters.
type Rule struct {
	// Repositories and Tags say which tags the rule is for; none means all.
	Repositories, Tags []string
	// Unused drops a tag that was neither pushed nor pulled for so long. Zero: never.
	Unused time.Duration
	// Keep keeps only so many tags of a repository that fit this rule, the ones pushed last. Zero: all.
	Keep int
	// Group counts Keep for each group of tags: those that are alike up to the last occurrence of this text. Empty: all
	// tags of the rule are one group.
	Group string
}

// rule is a Rule with its patterns compiled.
type rule struct {
	Rule
	repositories, tags *regexp.Regexp
}

func compile(rs []Rule) ([]rule, error) {
	out := make([]rule, 0, len(rs))
	for i, r := range rs {
		repositories, err1 := patterns(r.Repositories)
		tags, err2 := patterns(r.Tags)
		if err := cmp.Or(err1, err2); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		out = append(out, rule{r, repositories, tags})
	}
	return out, nil
}

func patterns(ps []string) (*regexp.Regexp, error) {
	if len(ps) == 0 {
		ps = []string{"*"}
	}
	quoted := make([]string, len(ps))
	for i, p := range ps {
		quoted[i] = strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, `.*`)
	}
	return regexp.Compile("^(?:" + strings.Join(quoted, "|") + ")$")
}

// ruleOf is the rule for a tag: the first that fits, or what holds for the whole Store.
func (s *Store) ruleOf(repo, tag string) (int, Rule) {
	for i, r := range s.rules {
		if r.repositories.MatchString(repo) && r.tags.MatchString(tag) {
			return i, r.Rule
		}
	}
	return -1, Rule{Unused: s.opts.Unused}
}

// The reasons for which something goes, as metric labels.
const (
	reasonUnused   = "unused"
	reasonSurplus  = "surplus"
	reasonUntagged = "untagged"
	reasonQuota    = "quota"
)

// prune drops what has become old by now.
func (s *Store) prune(ctx context.Context, now time.Time) {
	for _, r := range s.all() {
		if ctx.Err() != nil {
			return
		}
		s.expireMembers(r, now)
		if tags, manifests := s.outdated(s.stateOf(r), r.name, now); len(tags)+len(manifests) > 0 {
			err := s.change(ctx, r.name, func(next *state) error { // what was used meanwhile stays
				tags, manifests = s.outdated(next, r.name, now)
				for _, t := range tags {
					delete(next.tags, t.name)
				}
				for _, d := range manifests {
					next.remove(d)
				}
				return nil
			})
			if err != nil {
				s.log.Warn("hosted repository cannot be pruned", "repository", r.name, "error", err)
				continue
			}
			for _, t := range tags {
				s.dropped(r.name, t.name, t.why)
			}
			for _, d := range manifests {
				s.dropped(r.name, d.String(), reasonUntagged)
			}
		}
		s.retire(r)
	}
}

func (s *Store) dropped(repo, what, why string) {
	s.m.dropped.WithLabelValues(why).Inc()
	s.log.Info("dropped from hosted repository", "repository", repo, "what", what, "why", why)
}

func (s *Store) all() []*repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.repos))
}

func (s *Store) stateOf(r *repo) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.now
}

// outdatedTag is a tag that is to go.
type outdatedTag struct{ name, why string }

// outdated finds the tags of a repository that are to go by the rules, and the manifests that no tag leads to then and
// that nobody has used for Untagged.
func (s *Store) outdated(st *state, repo string, now time.Time) ([]outdatedTag, []digest.Digest) {
	type group struct {
		rule int
		name string
	}
	var gone []outdatedTag
	groups := map[group][]string{}
	roots := map[digest.Digest]bool{}
	for name, t := range st.tags {
		i, r := s.ruleOf(repo, name)
		used := st.manifests[t.Digest].lastUse()
		if t.Pushed.After(used) {
			used = t.Pushed
		}
		if r.Unused > 0 && now.Sub(used) > r.Unused {
			gone = append(gone, outdatedTag{name, reasonUnused})
			continue
		}
		if r.Keep == 0 {
			roots[t.Digest] = true
			continue
		}
		g := group{rule: i}
		if at := strings.LastIndex(name, r.Group); r.Group != "" && at >= 0 {
			g.name = name[:at]
		}
		groups[g] = append(groups[g], name)
	}
	for g, names := range groups {
		slices.SortFunc(names, func(a, b string) int {
			return cmp.Or(st.tags[b].Pushed.Compare(st.tags[a].Pushed), cmp.Compare(b, a))
		})
		for i, name := range names {
			if i < s.rules[g.rule].Keep {
				roots[st.tags[name].Digest] = true
			} else {
				gone = append(gone, outdatedTag{name, reasonSurplus})
			}
		}
	}
	if s.opts.Untagged <= 0 {
		return gone, nil
	}
	// What was used lately keeps what it needs and what refers to it.
	for d, m := range st.manifests {
		if now.Sub(m.lastUse()) <= s.opts.Untagged {
			roots[d] = true
		}
	}
	live := st.reachable(roots)
	var manifests []digest.Digest
	for d := range st.manifests {
		if !live[d] {
			manifests = append(manifests, d)
		}
	}
	return gone, manifests
}

// expireMembers takes blobs out of a repository that no manifest needed in time.
func (s *Store) expireMembers(r *repo, now time.Time) {
	s.mu.Lock()
	var free []func()
	for d := range r.members {
		free = append(free, s.leave(r, d, now)...)
	}
	s.mu.Unlock()
	for _, release := range free {
		release()
	}
}

// retire forgets a repository that has nothing any more.
func (s *Store) retire(r *repo) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	default:
		return // somebody is about to change that
	}
	if !s.idle(r) {
		return
	}
	// The file goes before the repository is forgotten: the next push would not wait for this turn, and write its own.
	if err := s.erase(r.name); err != nil {
		s.log.Warn("file of an empty hosted repository cannot be removed", "repository", r.name, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(r.members) == 0 {
		r.gone = true
		delete(s.repos, r.name)
	}
}

func (s *Store) idle(r *repo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !r.gone && r.now.empty() && len(r.members) == 0
}

// makeRoom drops what was not used for the longest time, until so many bytes are free, or returns ErrFull.
func (s *Store) makeRoom(ctx context.Context, short int64) error {
	if s.opts.Refuse {
		return full(fmt.Sprintf("%s is full", s.opts.Name))
	}
	enough, useless := s.bytes()-short, map[candidate]bool{}
	for s.bytes() > enough {
		for _, r := range s.all() { // blobs whose time is up are nobody's
			s.expireMembers(r, time.Now())
		}
		if s.bytes() <= enough {
			return nil
		}
		victim := s.oldest(time.Now(), useless)
		switch {
		case victim.repo == "":
			return full(fmt.Sprintf("%s is full of what is being pushed", s.opts.Name))
		case !s.frees(victim, time.Now()):
			useless[victim] = true
			continue
		}
		if err := s.expel(ctx, victim); err != nil {
			return err
		}
	}
	return nil
}

// candidate is a manifest that may have to go for others.
type candidate struct {
	repo   string
	digest digest.Digest
}

// frees reports whether dropping a manifest gives room at once: some of what it needs is not kept for a push.
func (s *Store) frees(c candidate, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[c.repo]
	if r == nil {
		return false
	}
	below := r.now.reachable(map[digest.Digest]bool{c.digest: true})
	for d := range below {
		for _, b := range r.now.manifests[d].blobs {
			if m := r.members[b.Digest]; m.needs == 1 && !now.Before(m.until) && s.holds[b.Digest].uses == 1 {
				return true
			}
		}
	}
	return len(below) > 1 // what several of them share may go with them
}

func (s *Store) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// oldest finds the manifest that was not used for the longest time among those that stand by themselves: no index names
// them, and they refer to nothing that is here. One without a tag that was pushed within Grace waits for its index.
func (s *Store) oldest(now time.Time, except map[candidate]bool) (victim candidate) {
	var least time.Time
	for _, r := range s.all() {
		st := s.stateOf(r)
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
			c := candidate{r.name, d}
			if used := m.lastUse(); !except[c] && (victim.repo == "" || used.Before(least)) {
				victim, least = c, used
			}
		}
	}
	return victim
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

// usesEvery bounds how often the file of a repository is written only because something in it was used.
const usesEvery = time.Hour

// writeUses writes the files of repositories whose uses were not written for so long.
func (s *Store) writeUses(ctx context.Context, age time.Duration) {
	for _, r := range s.all() {
		s.mu.Lock()
		due := r.stale && !r.gone && time.Since(r.written) >= age
		s.mu.Unlock()
		if !due {
			continue
		}
		if err := s.change(ctx, r.name, func(*state) error { return nil }); err != nil {
			s.log.Warn("uses of a hosted repository cannot be written", "repository", r.name, "error", err)
		}
	}
}
