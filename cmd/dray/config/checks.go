package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Checks is one entry of `checks`: the conditions that images must meet before dray forwards them
// to an upstream. An upstream names the entries that apply to it. Of these entries, dray uses the
// first whose `repositories` match the repository. docs/pipeline.md explains each stage, with an
// example.
type Checks struct {
	// The name by which an upstream, metrics and reports refer to this entry. It follows the rules for
	// names of upstreams.
	Name string `yaml:"name"`
	// Patterns of repository names; `*` stands for any characters, slashes included. Default: `*`,
	// every repository.
	Repositories []string `yaml:"repositories"`
	// The time at which dray forwards layers: `early` sends each layer while it arrives, and completes
	// its upload at the registry when the checks of this layer are done. Clients of the registry see a
	// layer only when a manifest names it. `hold` sends no byte before the verdict, which makes pushes
	// take longer. Default: `early`.
	Forward ForwardWhen `yaml:"forward"`
	// The handling of manifests that clients push by digest. With `hold`, a manifest that passes the
	// checks waits until an index or a tag that refers to it also passes. Therefore the registry gets
	// no manifest of a rejected index. With `forward`, dray forwards the manifest at once; use this if
	// you deploy by digest. Default: `hold`.
	DigestPush DigestPush `yaml:"digest_push"`
	// The longest time for which a manifest waits with `digest_push: hold`. After this time, dray
	// drops the manifest. Default: `1h`.
	HoldFor Duration `yaml:"hold_for"`
	// The handling of layers that a client does not send because the registry has them: `scan` fetches
	// the layers that the stages have not examined yet, `trust` accepts these layers. Default: `scan`.
	UnseenLayers UnseenLayers `yaml:"unseen_layers"`
	// The time for which dray lets a client that is built on containerd wait for the verdict. Such a
	// client gives up after 30 s. For other clients, `answer_within` of the listener bounds the time.
	// Default: `20s`.
	Within Duration `yaml:"within"`
	// The answer to a push whose verdict comes later than the client can wait: `reject` refuses it,
	// with a message that asks to push again. `warn` forwards the image, and the log says so. Default:
	// `reject`.
	OnTimeout OnError `yaml:"on_timeout"`
	// If `true`, dray stores the verdict beside the image in the registry, as an OCI artifact that
	// refers to it (`application/vnd.dray.verdict.v1+json`). Default: `false`.
	Attach bool `yaml:"attach,omitempty"`
	// The bounds on layers, such as their uncompressed size.
	Archive ArchiveCheck `yaml:"archive"`
	// The stage for names of repositories and tags.
	Names NamesCheck `yaml:"names,omitempty"`
	// The stage for sizes, platforms and media types.
	Shape ShapeCheck `yaml:"shape,omitempty"`
	// The stage for labels and annotations.
	Metadata MetadataCheck `yaml:"metadata,omitempty"`
	// The stage for users, variables, ports, and files with special rights.
	Runtime RuntimeCheck `yaml:"runtime,omitempty"`
	// The stage for the images that other images are built on.
	Base BaseCheck `yaml:"base,omitempty"`
	// The stage for the provenance and the SBOM that an image declares.
	Attestations AttestationsCheck `yaml:"attestations,omitempty"`
	// The stage for rules of your own.
	Rules RulesCheck `yaml:"rules,omitempty"`
	// The stage for credentials in layers, configurations and annotations.
	Secrets SecretsCheck `yaml:"secrets,omitempty"`
	// The stage for malware in layers.
	Clamd ClamdCheck `yaml:"clamd,omitempty"`
	// Services that judge images.
	Webhooks []WebhookCheck `yaml:"webhooks,omitempty"`
	// Programs that judge images.
	Exec []ExecCheck `yaml:"exec,omitempty"`
	// Findings that may pass, with the reason.
	Waivers []Waiver `yaml:"waivers,omitempty"`
}

// ArchiveCheck bounds layers. dray decompresses each layer once, in memory, and never writes its
// files to disk. It stops reading a layer that exceeds a bound.
type ArchiveCheck struct {
	// The action for an image with a layer that exceeds a bound or cannot be read: `enforce` rejects
	// it. `warn` reports the layer. A stage such as `secrets` that needs the layer then cannot judge
	// it, and follows its own `on_error`. `off` is like `warn`, but dray reads layers only if another
	// stage needs them. Default: `enforce`.
	Mode CheckMode `yaml:"mode"`
	// The highest number of uncompressed bytes for each compressed byte; dray begins to compare the
	// two when it has read more than 64 MiB of uncompressed bytes from a layer. Default: `200`.
	MaxRatio int `yaml:"max_ratio"`
	// The most entries of a layer. Default: `1000000`.
	MaxEntries int `yaml:"max_entries"`
	// The greatest depth of nested directories. Default: `128`.
	MaxDepth int `yaml:"max_depth"`
	// The greatest allowed length of a path, in bytes. Default: `4096`.
	MaxPath int `yaml:"max_path"`
	// The greatest uncompressed size of a layer. Default: `100GiB`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// The largest window of a layer that is compressed with zstd; dray keeps the window in memory. For
	// each processor core, dray decompresses at most one layer at a time whose window is larger than
	// 32 MiB. Default: `128MiB`, the most that the zstd program accepts.
	MaxWindow Bytes `yaml:"max_window"`
}

// Waiver lets findings pass. They stay in the report, with the reason.
type Waiver struct {
	// Patterns of repository names. Default: every repository.
	Repositories []string `yaml:"repositories,omitempty"`
	// The stage of the findings, such as `secrets`. Default: any.
	Stage string `yaml:"stage,omitempty"`
	// The rule of the findings. Default: any.
	Rule string `yaml:"rule,omitempty"`
	// A pattern of paths within layers, without a leading slash. Default: any.
	Path string `yaml:"path,omitempty"`
	// The fingerprint of a finding, from a report. Default: any.
	Fingerprint string `yaml:"fingerprint,omitempty"`
	// The reason for the waiver, which the report shows.
	Reason string `yaml:"reason"`
	// The last day of the waiver, such as `2027-03-31`. Default: no last day.
	Until Date `yaml:"until,omitempty"`
}

func (c *Checks) setDefaults() {
	*c = Checks{
		Repositories: []string{"*"}, Forward: ForwardEarly, DigestPush: DigestHold, HoldFor: Duration(time.Hour), UnseenLayers: UnseenScan,
		Within: Duration(20 * time.Second), OnTimeout: Reject,
		Archive: ArchiveCheck{Mode: Enforce, MaxRatio: 200, MaxEntries: 1_000_000, MaxDepth: 128, MaxPath: 4096, MaxBytes: 100 << 30, MaxWindow: 128 << 20},
	}
}

// Date is a day, as in `2027-03-31`.
type Date time.Time

// UnmarshalText parses a day.
func (d *Date) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("%q is not a day; write one like 2027-03-31", text)
	}
	*d = Date(t)
	return nil
}

// MarshalText formats the day. The text of the zero Date is empty.
func (d Date) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(time.Time(d).Format(time.DateOnly)), nil
}

// IsZero reports whether the day is not set.
func (d Date) IsZero() bool { return time.Time(d).IsZero() }

// End returns the first moment after the day, or the zero time for the zero Date.
func (d Date) End() time.Time {
	if d.IsZero() {
		return time.Time{}
	}
	return time.Time(d).AddDate(0, 0, 1)
}

func (u Upstream) validateChecks(k *Report, path string, checks []string) {
	for j, name := range u.Checks {
		if !slices.Contains(checks, name) {
			k.Add(At(path, j), "there are no checks named %q; known names: %s", name, strings.Join(checks, ", "))
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
		k.Add(path+".repositories", "is missing; use * for all repositories")
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
			k.Add(At(path, i), "%q matches no repository: names are lower case and do not begin with a slash", p)
		}
	}
}

func (a ArchiveCheck) validate(k *Report, path string) {
	positive(k, path+".max_ratio", a.MaxRatio)
	positive(k, path+".max_entries", a.MaxEntries)
	positive(k, path+".max_depth", a.MaxDepth)
	positive(k, path+".max_path", a.MaxPath)
	positive(k, path+".max_bytes", a.MaxBytes)
	positive(k, path+".max_window", a.MaxWindow)
}

func (w Waiver) validate(k *Report, path string) {
	patterns(k, path+".repositories", w.Repositories)
	if w.Reason == "" {
		k.Add(path+".reason", "is missing; reports show it to users")
	}
	if w.Stage == "" && w.Rule == "" && w.Fingerprint == "" {
		k.Add(path, "waives findings of every kind; set stage, rule or fingerprint")
	}
}
