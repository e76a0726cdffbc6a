package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Checks say what must be true of images before they land at an upstream. An upstream names those that count for it; the first one with a
// pattern for a repository is used. docs/pipeline.md explains each stage, with an example.
type Checks struct {
	// Name by which an upstream refers to them, in metrics and reports: written like the name of an upstream.
	Name string `yaml:"name"`
	// Patterns of repository names; `*` stands for any characters, slashes included. Default: `*`, every repository.
	Repositories []string `yaml:"repositories"`
	// When layers flow on: `early`, while they come, each being completed at the registry when it has been looked at (a registry shows nobody a
	// layer without a manifest); or `hold`, not a byte before the verdict, which makes pushes take longer. Default: `early`.
	Forward ForwardWhen `yaml:"forward"`
	// What becomes of manifests pushed by digest that pass: `hold`, they wait until an index or a tag that refers to them passes, so that a rejected
	// index leaves nothing behind; or `forward`, for who deploys by digest. Default: `hold`.
	DigestPush DigestPush `yaml:"digest_push"`
	// How long they wait. Default: `1h`.
	HoldFor Duration `yaml:"hold_for"`
	// Layers that a client does not send, because the registry has them: `scan` fetches those that nobody has looked at, `trust` leaves them alone.
	// Default: `scan`.
	UnseenLayers UnseenLayers `yaml:"unseen_layers"`
	// How long a client built on containerd waits for the verdict; it gives up after 30 s. Other clients wait ten minutes. Default: `20s`.
	Within Duration `yaml:"within"`
	// What becomes of a push whose verdict takes longer: `reject`, with a message that asks to push again, or `warn`, it lands, and the log says so. Default: `reject`.
	OnTimeout OnError `yaml:"on_timeout"`
	// Whether the verdict on an image that has landed is put beside it, as an OCI artifact that refers to it (`application/vnd.dray.verdict.v1+json`). Default: `false`.
	Attach bool `yaml:"attach,omitempty"`
	// Bounds on what a layer may make dray do.
	Archive ArchiveCheck `yaml:"archive"`
	// Names of repositories and tags.
	Names NamesCheck `yaml:"names,omitempty"`
	// Sizes, platforms and media types.
	Shape ShapeCheck `yaml:"shape,omitempty"`
	// Labels and annotations.
	Metadata MetadataCheck `yaml:"metadata,omitempty"`
	// Users, variables, ports and files with special rights.
	Runtime RuntimeCheck `yaml:"runtime,omitempty"`
	// What images are built on.
	Base BaseCheck `yaml:"base,omitempty"`
	// What is declared about an image: provenance and SBOM.
	Attestations AttestationsCheck `yaml:"attestations,omitempty"`
	// Rules of your own.
	Rules RulesCheck `yaml:"rules,omitempty"`
	// Credentials in layers.
	Secrets SecretsCheck `yaml:"secrets,omitempty"`
	// Malware in layers.
	Clamd ClamdCheck `yaml:"clamd,omitempty"`
	// Services that judge images.
	Webhooks []WebhookCheck `yaml:"webhooks,omitempty"`
	// Programs that judge images.
	Exec []ExecCheck `yaml:"exec,omitempty"`
	// Findings that are let pass, for a reason.
	Waivers []Waiver `yaml:"waivers,omitempty"`
}

// ArchiveCheck bounds layers. Each is decompressed once, in memory, and never written to disk; one that exceeds a bound is looked at no further.
type ArchiveCheck struct {
	// What becomes of images with a layer that exceeds one of the bounds or cannot be read: `enforce` rejects them, `warn` reports them, and what the other stages cannot
	// tell of the layer then follows their `on_error`; `off` is `warn`, and looks into layers only where another stage does. Default: `enforce`.
	Mode CheckMode `yaml:"mode"`
	// Most uncompressed bytes for each byte, looked at beyond 64 MiB. Default: `200`.
	MaxRatio int `yaml:"max_ratio"`
	// Most entries of a layer. Default: `1000000`.
	MaxEntries int `yaml:"max_entries"`
	// Most nested directories. Default: `128`.
	MaxDepth int `yaml:"max_depth"`
	// Longest path, in bytes. Default: `4096`.
	MaxPath int `yaml:"max_path"`
	// Most uncompressed bytes of a layer. Default: `100GiB`.
	MaxBytes Bytes `yaml:"max_bytes"`
}

// Waiver lets findings pass. They stay in the report, with the reason.
type Waiver struct {
	// Patterns of repository names. Default: every repository.
	Repositories []string `yaml:"repositories,omitempty"`
	// Stage of the findings, such as `secrets`. Default: any.
	Stage string `yaml:"stage,omitempty"`
	// Rule of the findings. Default: any.
	Rule string `yaml:"rule,omitempty"`
	// Pattern of paths within layers, without a leading slash. Default: any.
	Path string `yaml:"path,omitempty"`
	// Fingerprint of a finding, from a report. Default: any.
	Fingerprint string `yaml:"fingerprint,omitempty"`
	// Why they are let pass.
	Reason string `yaml:"reason"`
	// Last day on which they are, such as `2027-03-31`. Default: no last day.
	Until Date `yaml:"until,omitempty"`
}

func (c *Checks) setDefaults() {
	*c = Checks{
		Repositories: []string{"*"}, Forward: ForwardEarly, DigestPush: DigestHold, HoldFor: Duration(time.Hour), UnseenLayers: UnseenScan,
		Within: Duration(20 * time.Second), OnTimeout: Reject,
		Archive: ArchiveCheck{Mode: Enforce, MaxRatio: 200, MaxEntries: 1_000_000, MaxDepth: 128, MaxPath: 4096, MaxBytes: 100 << 30},
	}
}

// Date is a day, as in `2027-03-31`.
type Date time.Time

// UnmarshalText reads a day.
func (d *Date) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("%q is not a day; write one like 2027-03-31", text)
	}
	*d = Date(t)
	return nil
}

// MarshalText writes the day, and nothing for none.
func (d Date) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(time.Time(d).Format(time.DateOnly)), nil
}

// IsZero reports whether there is no day.
func (d Date) IsZero() bool { return time.Time(d).IsZero() }

// End is the first moment after the day; zero for none.
func (d Date) End() time.Time {
	if d.IsZero() {
		return time.Time{}
	}
	return time.Time(d).AddDate(0, 0, 1)
}

func (u Upstream) validateChecks(k *Report, path string, checks []string) {
	for j, name := range u.Checks {
		if !slices.Contains(checks, name) {
			k.Add(At(path, j), "no checks are called %q; there are: %s", name, strings.Join(checks, ", "))
		}
	}
	if len(u.Checks) > 0 && !u.Push && u.Kind != KindLocal {
		k.Add(path, "needs push: true")
	}
}

func (c Checks) validate(k *Report, path string) {
	if c.Name == "" {
		k.Add(path+".name", "is missing")
	}
	k.name(path+".name", c.Name, "")
	if len(c.Repositories) == 0 {
		k.Add(path+".repositories", "is missing; * is every repository")
	}
	patterns(k, path+".repositories", c.Repositories)
	if c.HoldFor < Duration(time.Minute) {
		k.Add(path+".hold_for", "%v is less than 1m", c.HoldFor)
	}
	if c.Within < Duration(time.Second) || c.Within > Duration(25*time.Second) {
		k.Add(path+".within", "%v is not between 1s and 25s", c.Within)
	}
	c.Archive.validate(k, path+".archive")
	for i, w := range c.Waivers {
		w.validate(k, At(path+".waivers", i))
	}
}

// patterns checks patterns of repository names.
func patterns(k *Report, path string, list []string) {
	for i, p := range list {
		if !repositoryPattern(p) {
			k.Add(At(path, i), "%q matches no repository; names are lower case and do not begin with a slash", p)
		}
	}
}

func (a ArchiveCheck) validate(k *Report, path string) {
	for _, bound := range []struct {
		key   string
		value int64
	}{{"max_ratio", int64(a.MaxRatio)}, {"max_entries", int64(a.MaxEntries)}, {"max_depth", int64(a.MaxDepth)}, {"max_path", int64(a.MaxPath)}, {"max_bytes", int64(a.MaxBytes)}} {
		if bound.value < 1 {
			k.Add(path+"."+bound.key, "must be more than zero")
		}
	}
}

func (w Waiver) validate(k *Report, path string) {
	patterns(k, path+".repositories", w.Repositories)
	if w.Reason == "" {
		k.Add(path+".reason", "is missing: it is what people read in the report")
	}
	if w.Stage == "" && w.Rule == "" && w.Fingerprint == "" {
		k.Add(path, "lets everything pass; give stage, rule or fingerprint")
	}
}
