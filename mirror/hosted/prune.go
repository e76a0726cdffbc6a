package hosted

import (
	"context"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pattern"
)

// Rule says for how long, or how many, tags are kept. Patterns are whole names in which "*" stands
// for any characters.
type Rule struct {
	// Repositories and Tags say which tags the rule is for; none means all.
	Repositories, Tags []string
	// Unused drops a tag that was neither pushed nor pulled for so long. Zero: never.
	Unused time.Duration
	// Keep keeps only so many tags of a repository that fit this rule, the ones pushed last. Zero:
	// all.
	Keep int
	// Group counts Keep for each group of tags: those that are alike up to the last occurrence of
	// this text. Empty: all tags of the rule are one group.
	Group string
}

// policy says which tags and manifests go when.
type policy struct {
	rules []Rule
	// unused and dangling are Unused and Untagged of the Options.
	unused, dangling time.Duration
}

func (r Rule) fits(repo, tag string) bool {
	return (len(r.Repositories) == 0 || pattern.Any(r.Repositories, repo)) && (len(r.Tags) == 0 || pattern.Any(r.Tags, tag))
}

// ruleOf is the rule for a tag: the first that fits, or what holds for the whole Store.
func (p *policy) ruleOf(repo, tag string) (int, Rule) {
	for i, r := range p.rules {
		if r.fits(repo, tag) {
			return i, r
		}
	}
	return -1, Rule{Unused: p.unused}
}

// The reasons for which something goes, as metric labels.
const (
	reasonUnused   = "unused"
	reasonSurplus  = "surplus"
	reasonUntagged = "untagged"
	reasonQuota    = "quota"
)

// pruneEvery is how often the Store looks for what is to go.
const pruneEvery = time.Minute

// Run drops what has become old until ctx ends, and then writes what was used when.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.writeUses(context.WithoutCancel(ctx), 0)
			return nil
		case now := <-tick.C:
			s.prune(ctx, now)
			s.writeUses(ctx, usesEvery)
		}
	}
}

// prune drops what has become old by now.
func (s *Store) prune(ctx context.Context, now time.Time) {
	for _, r := range s.contents.all() {
		if ctx.Err() != nil {
			return
		}
		s.contents.expireMembers(r, now)
		s.contents.stateOf(r).rewind(now)
		if tags, manifests := s.policy.outdated(s.contents.stateOf(r), r.name, now); len(tags)+len(manifests) > 0 {
			err := s.change(ctx, r.name, func(next *state) error { // what was used meanwhile stays
				tags, manifests = s.policy.outdated(next, r.name, now)
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

// outdatedTag is a tag that is to go.
type outdatedTag struct{ name, why string }

// outdated finds the tags of a repository that are to go by the rules, and the manifests that no
// tag leads to then and that nobody has used for Untagged.
func (p *policy) outdated(st *state, repo string, now time.Time) ([]outdatedTag, []digest.Digest) {
	gone, stay, groups := p.unusedTags(st, repo, now)
	for g, names := range groups {
		for i, name := range st.newestFirst(names) {
			if i < p.rules[g.rule].Keep {
				stay[st.tags[name].Digest] = true
			} else {
				gone = append(gone, outdatedTag{name, reasonSurplus})
			}
		}
	}
	if p.dangling <= 0 {
		return gone, nil
	}
	return gone, p.untagged(st, stay, now)
}

// group is tags of which a rule keeps so many.
type group struct {
	rule int
	name string
}

// unusedTags finds the tags that nobody has used for as long as their rule says. Of the others it
// finds what they point to, and those whose rule counts them, by group.
func (p *policy) unusedTags(st *state, repo string, now time.Time) (gone []outdatedTag, stay map[digest.Digest]bool, counted map[group][]string) {
	stay, counted = map[digest.Digest]bool{}, map[group][]string{}
	for name, t := range st.tags {
		i, r := p.ruleOf(repo, name)
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

// untagged finds the manifests that nothing which stays leads to, and that nobody has used for
// Untagged. What was used lately keeps what it needs and what refers to it.
func (p *policy) untagged(st *state, stay map[digest.Digest]bool, now time.Time) (gone []digest.Digest) {
	for d, m := range st.manifests {
		if now.Sub(m.lastUse()) <= p.dangling {
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

// retire forgets a repository that has nothing any more.
func (s *Store) retire(r *repo) {
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	default:
		return // somebody is about to change that
	}
	if !s.contents.idle(r) {
		return
	}
	// The file goes before the repository is forgotten: the next push would not wait for this turn,
	// and write its own.
	if err := s.files.erase(r.name); err != nil {
		s.log.Warn("file of an empty hosted repository cannot be removed", "repository", r.name, "error", err)
	}
	s.contents.forget(r)
}

// usesEvery bounds how often the file of a repository is written only because something in it was
// used.
const usesEvery = time.Hour

// writeUses writes the files of repositories whose uses were not written for so long.
func (s *Store) writeUses(ctx context.Context, age time.Duration) {
	for _, r := range s.contents.all() {
		if !s.contents.unwritten(r, age) {
			continue
		}
		if err := s.change(ctx, r.name, func(*state) error { return nil }); err != nil {
			s.log.Warn("uses of a hosted repository cannot be written", "repository", r.name, "error", err)
		}
	}
}
