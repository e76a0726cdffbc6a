package hosted

import (
	"context"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pattern"
)

// Rule limits the time for which tags are kept, or the number of kept tags. Its patterns match
// whole names; "*" matches any characters.
type Rule struct {
	// Repositories and Tags are patterns for the tags to which the rule applies. Empty matches all.
	Repositories, Tags []string
	// Unused is the time without a push or pull after which a tag is dropped. 0 means never.
	Unused time.Duration
	// Keep is the number of tags that each repository keeps, among the tags to which the rule applies.
	// Each repository keeps the most recently pushed of them. 0 means all.
	Keep int
	// Group is a separator in tags, such as "-". Tags with the same text before their last separator
	// are a group, and so are all tags without a separator. Keep counts each group by itself. If Group
	// is empty, all tags of the rule are one group.
	Group string
}

// policy decides which tags and manifests are dropped.
type policy struct {
	rules []Rule
	// unused and dangling are Options.Unused and Options.Untagged.
	unused, dangling time.Duration
}

func (r Rule) fits(repo, tag string) bool {
	return (len(r.Repositories) == 0 || pattern.Any(r.Repositories, repo)) && (len(r.Tags) == 0 || pattern.Any(r.Tags, tag))
}

// ruleOf returns the first rule that matches a tag, and its index. If no rule matches, it returns
// -1 and a rule with Options.Unused.
func (p *policy) ruleOf(repo, tag string) (int, Rule) {
	for i, r := range p.rules {
		if r.fits(repo, tag) {
			return i, r
		}
	}
	return -1, Rule{Unused: p.unused}
}

// The reasons why tags and manifests are dropped, as metric labels.
const (
	reasonUnused   = "unused"
	reasonSurplus  = "surplus"
	reasonUntagged = "untagged"
	reasonQuota    = "quota"
)

const pruneEvery = time.Minute

// Run prunes the repositories and stores the times of last use, until ctx ends. Then it stores
// these times once more.
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

// prune drops expired blobs, tags and manifests of all repositories.
func (s *Store) prune(ctx context.Context, now time.Time) {
	for _, r := range s.contents.all() {
		if ctx.Err() != nil {
			return
		}
		s.contents.expireMembers(r, now)
		s.contents.stateOf(r).rewind(now)
		if tags, manifests := s.policy.outdated(s.contents.stateOf(r), r.name, now); len(tags)+len(manifests) > 0 {
			err := s.change(ctx, r.name, func(next *state) error { // decide again, because content may have been used meanwhile
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
				s.log.Warn("cannot prune hosted repository", "repository", r.name, "error", err)
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

type outdatedTag struct{ name, why string }

// outdated returns the tags of a repository that the rules drop. It also returns the manifests to
// drop once these tags are gone (see policy.untagged); none if Options.Untagged is 0.
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

// group identifies the tags of a repository that count together towards Rule.Keep.
type group struct {
	rule int
	name string
}

// unusedTags divides the tags of a repository into three sets. The set outdated has the tags that
// were not used within the time that their rule sets in Unused. The set kept has the manifests of
// the other tags whose rule sets no Keep. The set counted has the names of the remaining tags by
// group: Keep decides about these tags.
func (p *policy) unusedTags(st *state, repo string, now time.Time) (outdated []outdatedTag, kept map[digest.Digest]bool, counted map[group][]string) {
	kept, counted = map[digest.Digest]bool{}, map[group][]string{}
	for name, t := range st.tags {
		i, r := p.ruleOf(repo, name)
		used := st.manifests[t.Digest].lastUse()
		if t.Pushed.After(used) {
			used = t.Pushed
		}
		if r.Unused > 0 && now.Sub(used) > r.Unused {
			outdated = append(outdated, outdatedTag{name, reasonUnused})
			continue
		}
		if r.Keep == 0 {
			kept[t.Digest] = true
			continue
		}
		g := group{rule: i}
		if at := strings.LastIndex(name, r.Group); r.Group != "" && at >= 0 {
			g.name = name[:at]
		}
		counted[g] = append(counted[g], name)
	}
	return outdated, kept, counted
}

// untagged returns the manifests to drop. It spares the manifests in kept, the manifests that were
// used within Options.Untagged, and all manifests that can be reached from these.
func (p *policy) untagged(st *state, kept map[digest.Digest]bool, now time.Time) (gone []digest.Digest) {
	for d, m := range st.manifests {
		if now.Sub(m.lastUse()) <= p.dangling {
			kept[d] = true
		}
	}
	live := st.reachable(kept)
	for d := range st.manifests {
		if !live[d] {
			gone = append(gone, d)
		}
	}
	return gone
}

// retire removes an empty repository and its file.
func (s *Store) retire(r *repo) {
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	default:
		return // a change is under way
	}
	if !s.contents.idle(r) {
		return
	}
	// Erase the file before removing the repository from contents. After the removal, a push creates a
	// new repo with a lock of its own, and may at once write a file that must not be erased.
	if err := s.files.erase(r.name); err != nil {
		s.log.Warn("cannot remove the file of an empty hosted repository", "repository", r.name, "error", err)
	}
	s.contents.forget(r)
}

// usesEvery is how old a repository's file must be before Store.Run rewrites it merely to store new
// times of last use. When its context ends, Store.Run rewrites younger files, too.
const usesEvery = time.Hour

// writeUses writes the file of each repository that was used after the last write of its file. It
// skips a file that was written less than minAge ago.
func (s *Store) writeUses(ctx context.Context, minAge time.Duration) {
	for _, r := range s.contents.all() {
		if !s.contents.unwritten(r, minAge) {
			continue
		}
		if err := s.change(ctx, r.name, func(*state) error { return nil }); err != nil {
			s.log.Warn("cannot store the last uses of a hosted repository", "repository", r.name, "error", err)
		}
	}
}
