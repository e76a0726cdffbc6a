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
		s.stateOf(r).rewind(now)
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

// rewind brings uses that a clock noted while it was ahead back to now.
func (st *state) rewind(now time.Time) {
	for _, m := range st.manifests {
		if used := m.used.Load(); used > now.Unix() {
			m.used.CompareAndSwap(used, now.Unix())
		}
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
	gone, stay, groups := s.unusedTags(st, repo, now)
	for g, names := range groups {
		for i, name := range st.newestFirst(names) {
			if i < s.rules[g.rule].Keep {
				stay[st.tags[name].Digest] = true
			} else {
				gone = append(gone, outdatedTag{name, reasonSurplus})
			}
		}
	}
	if s.opts.Untagged <= 0 {
		return gone, nil
	}
	return gone, s.untagged(st, stay, now)
}

// group is tags of which a rule keeps so many.
type group struct {
	rule int
	name string
}

// unusedTags finds the tags that nobody has used for as long as their rule says. Of the others it finds what they point to, and those whose
// rule counts them, by group.
func (s *Store) unusedTags(st *state, repo string, now time.Time) (gone []outdatedTag, stay map[digest.Digest]bool, counted map[group][]string) {
	stay, counted = map[digest.Digest]bool{}, map[group][]string{}
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
			stay[t.Digest] = true
			continue
		}
		g := group{rule: i}
		if at := strings.LastIndex(name, r.Group); r.Group != "" && at >= 0 {
			g.name = name[:at]
		}
		counted[g] = append(counted[g], name)
	}
	return gone, stay, counted
}

// newestFirst sorts tags by when they were pushed.
func (st *state) newestFirst(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(st.tags[b].Pushed.Compare(st.tags[a].Pushed), cmp.Compare(b, a))
	})
	return names
}

// untagged finds the manifests that nothing which stays leads to, and that nobody has used for Untagged. What was used lately keeps what it
// needs and what refers to it.
func (s *Store) untagged(st *state, stay map[digest.Digest]bool, now time.Time) (gone []digest.Digest) {
	for d, m := range st.manifests {
		if now.Sub(m.lastUse()) <= s.opts.Untagged {
			stay[d] = true
		}
	}
	live := st.reachable(stay)
	for d := range st.manifests {
		if !live[d] {
			gone = append(gone, d)
		}
	}
	return gone
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
