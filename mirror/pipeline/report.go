package pipeline

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Report is a verdict with all findings and unknowns that led to it.
type Report struct {
	// ID is the name by which clients can get the report later; empty if the report is not kept.
	ID string `json:"id,omitempty"`
	// Pass reports whether the image may be forwarded.
	Pass       bool          `json:"pass"`
	Checks     string        `json:"checks"`
	Revision   string        `json:"revision"`
	Upstream   string        `json:"upstream"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	MediaType  string        `json:"mediaType,omitempty"`
	User       string        `json:"user,omitempty"`
	At         time.Time     `json:"at"`
	Seconds    float64       `json:"seconds"`
	Stages     []StageRun    `json:"stages"`
	Findings   []Finding     `json:"findings"`
	Unknowns   []Unknown     `json:"unknowns"`
	// More is the number of findings and unknowns that were left out.
	More int `json:"more,omitempty"`

	mu       sync.Mutex // guards Findings, Unknowns, More, seen and gathered while stages run concurrently
	seen     map[string]bool
	gathered [3]int // the number of findings of each weight
}

// Statement returns the report as a JSON document that does not depend on the user, the time or the
// tag. So the same verdict on the same image has the same bytes.
func (r *Report) Statement() ([]byte, error) {
	return json.Marshal(struct {
		Pass       bool          `json:"pass"`
		Checks     string        `json:"checks"`
		Revision   string        `json:"revision"`
		Repository string        `json:"repository"`
		Digest     digest.Digest `json:"digest"`
		MediaType  string        `json:"mediaType"`
		Stages     []StageRun    `json:"stages"`
		Findings   []Finding     `json:"findings"`
		Unknowns   []Unknown     `json:"unknowns"`
		More       int           `json:"more,omitempty"`
	}{r.Pass, r.Checks, r.Revision, r.Repository, r.Digest, r.MediaType, r.Stages, r.Findings, r.Unknowns, r.More})
}

// StageRun is a stage that took part in the verdict.
type StageRun struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	Mode     Mode   `json:"mode"`
}

// MaxFindings bounds the findings of one report, and also its unknowns. If there are more, those
// that do not reject are left out first.
const MaxFindings = 500

// maxGathered bounds the findings of each weight in a report until finish sorts and cuts them.
const maxGathered = 10 * MaxFindings

func (r *Report) add(p *Pipeline, f Finding) {
	f = p.waive(f, r.Repository, r.At)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	if r.seen[f.key()] {
		return
	}
	r.seen[f.key()] = true
	if r.gathered[weight(f)]++; r.gathered[weight(f)] > maxGathered {
		r.More++
		return
	}
	r.Findings = append(r.Findings, f)
}

func (r *Report) unknown(u Unknown) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.Unknowns, u) {
		r.Unknowns = append(r.Unknowns, u)
	}
}

// finish sorts and bounds the report, and sets Pass.
func (r *Report) finish() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(-cmp.Compare(weight(a), weight(b)), strings.Compare(a.Stage, b.Stage), cmp.Compare(a.Where.Number, b.Where.Number),
			strings.Compare(a.Where.Platform, b.Where.Platform), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Where.Path, b.Where.Path), strings.Compare(a.What, b.What))
	})
	slices.SortStableFunc(r.Unknowns, func(a, b Unknown) int {
		return cmp.Or(strings.Compare(a.Stage, b.Stage), cmp.Compare(a.Where.Number, b.Where.Number), strings.Compare(a.Why, b.Why))
	})
	if over := len(r.Findings) - MaxFindings; over > 0 {
		r.Findings, r.More = r.Findings[:MaxFindings], r.More+over
	}
	if over := len(r.Unknowns) - MaxFindings; over > 0 {
		slices.SortStableFunc(r.Unknowns, func(a, b Unknown) int { return cmp.Compare(b2i(b.Rejects()), b2i(a.Rejects())) })
		r.Unknowns, r.More = r.Unknowns[:MaxFindings], r.More+over
	}
	r.Pass = !slices.ContainsFunc(r.Findings, Finding.Rejects) && !slices.ContainsFunc(r.Unknowns, Unknown.Rejects)
	r.Findings, r.Unknowns = append([]Finding{}, r.Findings...), append([]Unknown{}, r.Unknowns...)
	r.seen = nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// weight orders findings: rejecting ones weigh most, waived ones least.
func weight(f Finding) int {
	switch {
	case f.Rejects():
		return 2
	case f.Waived == "":
		return 1
	}
	return 0
}

// Outcome is the verdict in one word: "pass", "reject", or "unknown" if only unknowns reject.
func (r *Report) Outcome() string {
	switch {
	case r.Pass:
		return "pass"
	case slices.ContainsFunc(r.Findings, Finding.Rejects):
		return "reject"
	}
	return "unknown"
}

// ByRule counts the findings of each rule, including waived ones: "secrets/aws-access-key=2".
func (r *Report) ByRule() []string {
	counts := map[string]int{}
	for _, f := range r.Findings {
		counts[f.Stage+"/"+f.Rule]++
	}
	var out []string
	for _, rule := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s=%d", rule, counts[rule]))
	}
	return out
}

// Broken lists the rules that reject the image, as stage/rule, and the stages whose unknowns
// reject it, as stage/unknown.
func (r *Report) Broken() []string {
	var rules []string
	for _, f := range r.Findings {
		if name := f.Stage + "/" + f.Rule; f.Rejects() && !slices.Contains(rules, name) {
			rules = append(rules, name)
		}
	}
	for _, u := range r.Unknowns {
		if name := u.Stage + "/unknown"; u.Rejects() && !slices.Contains(rules, name) {
			rules = append(rules, name)
		}
	}
	return rules
}

// MaxMessage is the maximum length of a message in bytes. Clients show longer ones, but people
// do not read them.
const MaxMessage = 900

// Message returns the text of a rejection for a terminal: a summary, one line for each finding or
// unknown that rejects the image, and the address of the report. One line says how many others are
// left out, because they do not fit into MaxMessage or are not in the report. Clients print the
// text after "denied: ".
func (r *Report) Message(url string) string {
	var lines []string
	for _, f := range r.Findings {
		if f.Rejects() {
			lines = append(lines, f.line())
		}
	}
	found := len(lines)
	for _, u := range r.Unknowns {
		if u.Rejects() {
			lines = append(lines, u.line())
		}
	}
	head := fmt.Sprintf("%s of %s failed, so the image was not stored", checks(found), r.Repository)
	if found == 0 {
		head = fmt.Sprintf("%s of %s could not be completed, so the image was not stored", checks(len(lines)), r.Repository)
	}
	tail := ""
	if url != "" {
		tail = "\nreport: " + url
	}
	const forRest = 40 // "and 123 more"
	b := strings.Builder{}
	b.WriteString(clean(head, 300))
	rest := r.More
	for i, l := range lines {
		left := MaxMessage - len(tail) - b.Len() - 1
		if i+1 < len(lines) || rest > 0 {
			left -= forRest
		}
		if len(l) > left && i == 0 {
			l = clean(l, max(left, 80))
		} else if len(l) > left {
			rest += len(lines) - i
			break
		}
		b.WriteString("\n" + l)
	}
	if rest > 0 {
		fmt.Fprintf(&b, "\nand %d more", rest)
	}
	return b.String() + tail
}

func checks(n int) string {
	if n == 1 {
		return "1 check"
	}
	return fmt.Sprintf("%d checks", n)
}

func (f Finding) line() string {
	l := "- [" + f.Stage + "/" + f.Rule + "] "
	if at := f.Where.String(); at != "" {
		l += at + ": "
	}
	l += f.What
	if f.Fix != "" {
		l += "; " + f.Fix
	}
	return l
}

func (u Unknown) line() string {
	l := "- [" + u.Stage + "] "
	if at := u.Where.String(); at != "" {
		l += at + ": "
	}
	return l + "no result: " + u.Why
}
