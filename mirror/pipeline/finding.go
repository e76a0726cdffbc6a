package pipeline

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// Mode is what becomes of the findings of a stage.
type Mode string

// The modes.
const (
	// Enforce rejects the push.
	Enforce Mode = "enforce"
	// Warn reports and lets the push pass.
	Warn Mode = "warn"
	// Off does not run the stage.
	Off Mode = "off"
)

// OnError is what becomes of a push when a stage could not tell.
type OnError string

// The answers to not knowing.
const (
	Reject OnError = "reject"
	// Allow reports it and lets the push pass. It is written "warn".
	Allow OnError = "warn"
)

// Place is where something was found. All of it may be empty.
type Place struct {
	// Platform is the one of the image within an index, such as "linux/arm64".
	Platform string `json:"platform,omitempty"`
	// Manifest is the digest of that image's manifest.
	Manifest digest.Digest `json:"manifest,omitempty"`
	Layer    digest.Digest `json:"layer,omitempty"`
	// Number is the layer's place in the image, from 1 on, and Of their number.
	Number int `json:"number,omitempty"`
	Of     int `json:"of,omitempty"`
	// Path is that of a file within the layer, without a leading slash.
	Path string `json:"path,omitempty"`
}

// String is the place for people: "linux/arm64, layer 2 of 5, etc/passwd".
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

// Finding is one thing that a stage has against an image.
type Finding struct {
	Stage string `json:"stage"`
	// Rule is the stage's own name for what was broken. There are few of them: they
	// label metrics.
	Rule string `json:"rule"`
	Mode Mode   `json:"mode"`
	// What was found, in words for the person who pushed. It never holds a secret.
	What  string `json:"what"`
	Where Place  `json:"where,omitzero"`
	// Fix is what to do about it.
	Fix string `json:"fix,omitempty"`
	// Fingerprint is equal for the same finding in the next push. A stage may give its
	// own; else it is made of stage, rule, path and text.
	Fingerprint string `json:"fingerprint"`
	// Waived is the reason of the waiver that applies; the finding then rejects nothing.
	Waived string `json:"waived,omitempty"`
}

// Rejects reports whether the finding alone keeps the image out.
func (f Finding) Rejects() bool { return f.Mode == Enforce && f.Waived == "" }

// Most bytes of the texts of one finding. They may hold names that a stranger chose.
const (
	maxWhat = 400
	maxPath = 300
)

// complete completes a finding of a stage and bounds it.
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

// Further is the finding that there are more of them than are kept, for where those that are kept
// may all be waived.
func Further(n int, where Place) Finding {
	return Finding{Rule: "more", What: fmt.Sprintf("there are %d findings more than are kept", n), Where: where, Fix: "mend those that are listed, also if they are waived, and push again"}
}

// Fingerprint is a short sum over texts, for findings that should be told apart.
func Fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// clean makes text of a stranger fit for terminals, logs and JSON: one line, no
// control characters, at most n bytes.
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

// Unknown is what could not be told about an image.
type Unknown struct {
	Stage string `json:"stage"`
	// Why it could not be told.
	Why     string  `json:"why"`
	Where   Place   `json:"where,omitzero"`
	OnError OnError `json:"on_error"`
}

// Rejects reports whether the unknown alone keeps the image out.
func (u Unknown) Rejects() bool { return u.OnError != Allow }

// key tells findings apart within one report.
func (f Finding) key() string {
	return strings.Join([]string{f.Stage, f.Rule, f.Fingerprint, cmp.Or(f.Where.Layer.String(), f.Where.Manifest.String()), f.Where.Path, f.What}, "\x00")
}
