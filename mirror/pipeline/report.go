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

// Report is a verdict on an image, with the findings and unknowns of the stages.
type Report struct {
	// ID is the name by which clients can get the report later. It is empty if the report is not
	// stored.
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

	// Stages that run concurrently add to the report. mu guards Findings, Unknowns, More and the
	// fields below.
	mu       sync.Mutex
	seen     map[string]bool
	gathered [3]int // the number of findings of each weight
}

// Statement returns the report as a JSON document that does not depend on the user, the time or the
// tag. Equal verdicts on the same image therefore have equal statements.
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

// MaxFindings bounds the number of findings in one report, and also the number of unknowns. If
// there are more, findings and unknowns that do not reject the image are left out first.
const MaxFindings = 500

// maxGathered bounds the number of findings of each weight that a report collects before
// [Report.finish] sorts and cuts them.
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

// weight orders findings. It is 2 if a finding rejects the image, 0 if it is waived, and 1
// otherwise.
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

// Broken lists the rules that reject the image, as stage/rule, and the stages whose unknowns reject
// it, as stage/unknown.
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

// MaxMessage is the maximum length of a message in bytes. Clients also show longer messages, but
// people do not read them.
const MaxMessage = 900

// Message returns the text of a rejection for a terminal: a summary, one line for each finding or
// unknown that rejects the image, and the address of the report. The line for a finding ends with
// its advice (Finding.Fix). If the text with all advice would be longer than MaxMessage, the lines
// have no advice, and each distinct advice follows the lines once, if it fits. One more line counts
// the findings and unknowns that do not fit or that the report leaves out. Clients print "denied: "
// in front of the text.
func (r *Report) Message(url string) string {
	var full, brief []string
	var all advices
	stages := map[string]bool{}
	for _, f := range r.Findings {
		if f.Rejects() {
			stages[f.Stage] = true
			full, brief = append(full, strings.TrimSuffix(f.line()+"; "+f.Fix, "; ")), append(brief, f.line())
			all.add(f)
		}
	}
	found := len(full)
	undecided := map[string]bool{}
	for _, u := range r.Unknowns {
		if u.Rejects() {
			undecided[u.Stage] = true
			full, brief = append(full, u.line()), append(brief, u.line())
		}
	}
	head := fmt.Sprintf("%s of %s failed, so the image was not stored", count(len(stages), "check"), r.Repository)
	switch {
	case found == 0:
		head = fmt.Sprintf("%s of %s could not be completed, so the image was not stored", count(len(undecided), "check"), r.Repository)
	case found > len(stages):
		head += fmt.Sprintf(" (%s)", count(found, "finding"))
	}
	tail := ""
	if url != "" {
		tail = "\nreport: " + url
	}
	m := &message{space: MaxMessage - len(tail)}
	m.add(clean(head, 300))
	if size := len(strings.Join(full, "\n")); size < m.space && r.More == 0 || size < m.space-forRest {
		brief, all = full, nil
	}
	m.list(brief, r.More)
	for _, l := range all.lines() {
		if len(l) < m.space {
			m.add(l)
		}
	}
	return m.String() + tail
}

// advices are the distinct advices about the findings.
type advices []advice

// advice is the text that tells people how to fix the findings of some rules.
type advice struct {
	fix   string
	rules []string
}

func (a *advices) add(f Finding) {
	if f.Fix == "" {
		return
	}
	i := slices.IndexFunc(*a, func(known advice) bool { return known.fix == f.Fix })
	if i < 0 {
		i, *a = len(*a), append(*a, advice{fix: f.Fix})
	}
	if rule := f.Stage + "/" + f.Rule; !slices.Contains((*a)[i].rules, rule) {
		(*a)[i].rules = append((*a)[i].rules, rule)
	}
}

func (a advices) lines() []string {
	var lines []string
	for _, known := range a {
		lines = append(lines, "what to do about "+strings.Join(known.rules, ", ")+": "+known.fix)
	}
	return lines
}

// message is a text of lines. space is the number of bytes that further lines may have.
type message struct {
	strings.Builder
	space int
}

// add appends a line.
func (m *message) add(line string) {
	if m.Len() > 0 {
		line = "\n" + line
	}
	m.WriteString(line)
	m.space -= len(line)
}

// forRest is how many bytes are kept free for the line that counts the missing lines.
const forRest = len("\nand 1234567 more")

// list appends as many lines as fit. omitted is the number of lines that the caller has left out.
// If it is not 0, or if lines do not fit, one last line has the number of all missing lines. The
// first line is cut if it is too long.
func (m *message) list(lines []string, omitted int) {
	for i, l := range lines {
		room := m.space - len("\n")
		if i+1 < len(lines) || omitted > 0 {
			room -= forRest
		}
		if len(l) > room && i > 0 {
			omitted += len(lines) - i
			break
		}
		m.add(clean(l, max(room, 80)))
	}
	if omitted > 0 {
		m.add(fmt.Sprintf("and %d more", omitted))
	}
}

// count returns a number with its noun, such as "1 check" or "2 checks".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// line returns the line for a finding, without advice.
func (f Finding) line() string {
	l := "- [" + f.Stage + "/" + f.Rule + "] "
	if at := f.Where.String(); at != "" {
		l += at + ": "
	}
	return l + f.What
}

func (u Unknown) line() string {
	l := "- [" + u.Stage + "] "
	if at := u.Where.String(); at != "" {
		l += at + ": "
	}
	return l + "no result: " + u.Why
}
