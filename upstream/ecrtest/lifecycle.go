package ecrtest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// lifecycleRule is a rule of a lifecycle policy (ECR guide, lifecycle_policy_parameters, 2026-11).
type lifecycleRule struct {
	Priority  int `json:"rulePriority"`
	Selection struct {
		TagStatus    string   `json:"tagStatus"`
		Patterns     []string `json:"tagPatternList"`
		Prefixes     []string `json:"tagPrefixList"`
		StorageClass string   `json:"storageClass"`
		CountType    string   `json:"countType"`
		CountUnit    string   `json:"countUnit"`
		CountNumber  int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type   string `json:"type"`
		Target string `json:"targetStorageClass"`
	} `json:"action"`
}

// parseLifecycle returns the rules of a policy, sorted by priority. It reports false for a policy
// that ECR refuses.
func parseLifecycle(text string) ([]lifecycleRule, bool) {
	var p struct {
		Rules []lifecycleRule `json:"rules"`
	}
	if json.Unmarshal([]byte(text), &p) != nil || len(p.Rules) == 0 || len(p.Rules) > 50 {
		return nil, false
	}
	slices.SortFunc(p.Rules, func(a, b lifecycleRule) int { return cmp.Compare(a.Priority, b.Priority) })
	for i, r := range p.Rules {
		if !r.sound() || r.Priority < 1 || i > 0 && p.Rules[i-1].Priority == r.Priority {
			return nil, false
		}
	}
	return p.Rules, true
}

// [lifecycleRule.sound] reports whether the parts of a rule fit together.
func (r lifecycleRule) sound() bool {
	s := r.Selection
	named := len(s.Patterns) + len(s.Prefixes)
	switch s.TagStatus {
	case "tagged":
		if named == 0 {
			return false
		}
	case "untagged", "any":
		if named > 0 {
			return false
		}
	default:
		return false
	}
	switch s.CountType {
	case "imageCountMoreThan":
		if s.CountUnit != "" {
			return false
		}
	case "sinceImagePushed", "sinceImagePulled", "sinceImageTransitioned":
		if s.CountUnit != "days" {
			return false
		}
	default:
		return false
	}
	// A rule that deletes archived images must leave them for at least 90 days, because ECR keeps an
	// archived image for that time (ECR guide, archive-image).
	archive := s.CountType == "sinceImageTransitioned"
	if archive != (s.StorageClass == "archive") || archive && s.CountNumber < 90 || s.CountNumber < 1 {
		return false
	}
	return r.Action.Type == "expire" && r.Action.Target == "" || r.Action.Type == "transition" && r.Action.Target == "archive" && !archive
}

// selects reports whether an image is in the storage class and has the tags of the rule.
func (r lifecycleRule) selects(img *image, tags []string) bool {
	s := r.Selection
	if img.archived != (s.StorageClass == "archive") {
		return false
	}
	switch s.TagStatus {
	case "untagged":
		return len(tags) == 0
	case "any":
		return true
	}
	has := func(fits func(tag string) bool) bool { return slices.ContainsFunc(tags, fits) }
	for _, p := range s.Patterns {
		if !has(func(tag string) bool { return wildcard(p, tag) }) {
			return false
		}
	}
	for _, p := range s.Prefixes {
		if !has(func(tag string) bool { return strings.HasPrefix(tag, p) }) {
			return false
		}
	}
	return true
}

// [lifecycleRule.due] returns the selected images on which the rule acts now.
func (r lifecycleRule) due(selected []*image, now time.Time) []*image {
	if r.Selection.CountType == "imageCountMoreThan" {
		slices.SortStableFunc(selected, func(a, b *image) int { return b.pushed.Compare(a.pushed) })
		return selected[min(r.Selection.CountNumber, len(selected)):]
	}
	before := now.AddDate(0, 0, -r.Selection.CountNumber)
	return slices.DeleteFunc(selected, func(img *image) bool {
		since := img.pushed
		switch r.Selection.CountType {
		case "sinceImagePulled": // counted from the last pull, push or restoration
			since = latest(img.pushed, img.lastPull, img.moved)
		case "sinceImageTransitioned":
			since = img.moved
		}
		return !since.Before(before)
	})
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// applyLifecycle applies the lifecycle rules of all repositories immediately. ECR may take up to 24
// hours for this.
func (s *Server) applyLifecycle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	for _, g := range s.registries {
		for _, r := range g.repos {
			if rules, ok := parseLifecycle(r.lifecycle); ok {
				s.applyLocked(r, rules, now)
			}
		}
	}
}

// applyLocked applies the rules of one repository. No rule acts on an image that a rule of higher
// priority has selected, that an index names, or that refers to another image of the repository.
// expireLocked removes a referrer together with the image that it refers to.
func (s *Server) applyLocked(r *repository, rules []lifecycleRule, now time.Time) {
	taken := map[digest.Digest]bool{}
	for d, img := range r.images {
		taken[d] = r.referenced(d) || r.images[img.doc.subject] != nil
	}
	for _, rule := range rules {
		var selected []*image
		for d, img := range r.images {
			if !taken[d] && rule.selects(img, r.sortedTags(img)) {
				selected = append(selected, img)
				taken[d] = true
			}
		}
		for _, img := range rule.due(selected, now) {
			if rule.Action.Type == "transition" {
				r.archive(img, true, now)
				continue
			}
			s.expireLocked(r, img)
		}
	}
}

// expireLocked removes an image, its referrers, and the layers that no other image names.
func (s *Server) expireLocked(r *repository, img *image) {
	r.remove(img.doc.digest)
	for _, b := range img.doc.blobs {
		if l, ok := r.layers[b.Digest]; ok && l.named == 0 {
			delete(r.layers, b.Digest)
			delete(s.objects, l.object)
		}
	}
	for _, other := range r.images {
		if other.doc.subject == img.doc.digest {
			s.expireLocked(r, other)
		}
	}
}
