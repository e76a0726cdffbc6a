package pipeline

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// Mode is the effect of a stage's findings.
type Mode string

// The modes.
const (
	// Enforce rejects the push.
	Enforce Mode = "enforce"
	// Warn reports the findings and lets the push pass.
	Warn Mode = "warn"
	// Off disables the stage.
	Off Mode = "off"
)

// OnError is the effect of an [Unknown], the outcome of a stage that gave no result.
type OnError string

// The values of OnError.
const (
	Reject OnError = "reject"
	// Allow reports the unknown and lets the push pass. The configuration calls it "warn".
	Allow OnError = "warn"
)

// Place is the location of a finding. Any field may be empty.
type Place struct {
	// Platform is the platform of the image within an index, such as "linux/arm64".
	Platform string `json:"platform,omitempty"`
	// Manifest is the digest of the manifest that has the finding.
	Manifest digest.Digest `json:"manifest,omitempty"`
	Layer    digest.Digest `json:"layer,omitempty"`
	// Number is the layer's position in the image, counted from 1. The field Of is the number of
	// layers.
	Number int `json:"number,omitempty"`
	Of     int `json:"of,omitempty"`
	// Path is the path of a file in the layer, without a leading slash.
	Path string `json:"path,omitempty"`
}

// String formats the place for people: "linux/arm64, layer 2 of 5, /etc/passwd".
func (p Place) String() string {
	var parts []string
	if p.Platform != "" {
		parts = append(parts, p.Platform)
	}
	switch {
	case p.Number > 0:
		parts = append(parts, fmt.Sprintf("layer %d of %d", p.Number, p.Of))
	case p.Layer != "":
		parts = append(parts, "layer "+oci.Short(p.Layer))
	}
	if p.Path != "" {
		parts = append(parts, "/"+p.Path)
	}
	return strings.Join(parts, ", ")
}

// Finding is one objection of a stage to an image.
type Finding struct {
	Stage string `json:"stage"`
	// Rule is the stage's name for the rule that was broken. The name is a metric label, so a stage
	// must have few rules.
	Rule string `json:"rule"`
	Mode Mode   `json:"mode"`
	// Description of the problem, for the person who pushed. It never contains a secret.
	What  string `json:"what"`
	Where Place  `json:"where,omitzero"`
	// Fix is how to solve the problem.
	Fix string `json:"fix,omitempty"`
	// Fingerprint is the same when a later push has the same finding. A stage may set it. By default,
	// it is a hash of Stage, Rule, Where.Path and What.
	Fingerprint string `json:"fingerprint"`
	// Waived is the reason of the waiver that applies to the finding, or "waived" if the waiver gives
	// none. It is empty if no waiver applies. A waived finding rejects nothing.
	Waived string `json:"waived,omitempty"`
}

// Rejects reports whether the finding alone rejects the image.
func (f Finding) Rejects() bool { return f.Mode == Enforce && f.Waived == "" }

// Bounds of the texts of one finding, in bytes. The texts may contain names that an attacker chose.
const (
	maxWhat = 400
	maxPath = 300
)

// complete sets the stage and the mode of a finding, clears Waived, bounds the texts, and sets the
// fingerprint if the stage has not set it.
func (f Finding) complete(stage string, mode Mode) Finding {
	f.Stage, f.Mode, f.Waived = stage, mode, ""
	f.What, f.Fix = clean(f.What, maxWhat), clean(f.Fix, maxWhat)
	f.Where.Path = clean(f.Where.Path, maxPath)
	f.Where.Platform = clean(f.Where.Platform, 100)
	if f.Fingerprint == "" {
		f.Fingerprint = Fingerprint(stage, f.Rule, f.Where.Path, f.What)
	}
	return f
}

// MoreFindings returns a finding which says that the report lacks n other findings. Without it, an
// image would pass if all findings in the report were waived, although nobody waived the others.
func MoreFindings(n int, where Place) Finding {
	return Finding{Rule: "more", What: fmt.Sprintf("there are %d more findings", n), Where: where, Fix: "fix the listed findings, including the waived ones, and push again"}
}

// Fingerprint returns a short hash of parts. Equal parts have equal hashes.
func Fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// clean makes untrusted text fit for terminals, logs and JSON: one line, no control characters, at
// most n bytes.
func clean(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x200e && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-len("…")], "") + "…"
	}
	return s
}

// Unknown says that a stage could not give a result for an image, or for one of its layers.
type Unknown struct {
	Stage   string  `json:"stage"`
	Why     string  `json:"why"`
	Where   Place   `json:"where,omitzero"`
	OnError OnError `json:"on_error"`
}

// Rejects reports whether the unknown alone rejects the image.
func (u Unknown) Rejects() bool { return u.OnError != Allow }

// key identifies the finding within one report.
func (f Finding) key() string {
	return strings.Join([]string{f.Stage, f.Rule, f.Fingerprint, cmp.Or(f.Where.Layer.String(), f.Where.Manifest.String()), f.Where.Path, f.What}, "\x00")
}

// RuleName makes a metric label from the name that a webhook or a scanner gives to a rule. It does
// not change a name that consists of 1 to 40 lower-case letters, digits, - and _. It returns
// "refused" for an empty name, and "other" for any other name.
func RuleName(s string) string {
	switch {
	case s == "":
		return "refused"
	case !ruleName.MatchString(s):
		return "other"
	}
	return s
}

var ruleName = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// ExternalFinding is a finding in the JSON of a webhook's or a scanner's answer.
type ExternalFinding struct {
	Rule string `json:"rule"`
	Text string `json:"message"`
	Path string `json:"path"`
	Fix  string `json:"fix"`
}

// maxExternal bounds the number of findings that are read from one answer.
const maxExternal = 100

// FindingsOf converts external findings. fallback is the message of each finding that has no
// message of its own.
func FindingsOf(external []ExternalFinding, fallback string) []Finding {
	var out []Finding
	for _, f := range external[:min(len(external), maxExternal)] {
		out = append(out, Finding{Rule: RuleName(f.Rule), What: cmp.Or(f.Text, fallback), Where: Place{Path: f.Path}, Fix: f.Fix})
	}
	if more := len(external) - maxExternal; more > 0 {
		out = append(out, MoreFindings(more, Place{}))
	}
	return out
}
