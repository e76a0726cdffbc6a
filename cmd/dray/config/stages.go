package config

import "dray/upstream/auth"

// StageSettings are what most stages have. Where one means something else by a key, the comment of its field says so,
// as "key: prose".
type StageSettings struct {
	// What becomes of findings: `enforce`, `warn` or `off`. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// What becomes of images about which the stage could not tell: `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// Time for an image. Default: `10s`.
	Within Duration `yaml:"within,omitempty"`
}

// SecretsCheck finds credentials in the contents and by the paths of files. A file that a later layer deletes is found as well, because it can be downloaded all the
// same. Findings show a fingerprint, never the secret; a waiver can name it.
type SecretsCheck struct {
	// within: Time for a layer. Default: `1m`.
	StageSettings `yaml:",inline"`
	// Built-in rules that are left out; docs/pipeline.md lists them.
	Without []string `yaml:"without,omitempty"`
	// How much of a file is looked at. Default: all.
	MaxFile Bytes `yaml:"max_file,omitempty"`
}

// AttestationsCheck asks for what BuildKit declares about an image in its index. Declared is not proven: whoever pushes can write it.
type AttestationsCheck struct {
	StageSettings `yaml:",inline"`
	// Whether every image must declare its provenance.
	Provenance bool `yaml:"provenance,omitempty"`
	// Whether every image must declare its SBOM.
	SBOM bool `yaml:"sbom,omitempty"`
	// Patterns of builders, one of which the provenance must name; `*` stands for any characters.
	Builders []string `yaml:"builders,omitempty"`
	// Patterns of source repositories, likewise.
	Sources []string `yaml:"sources,omitempty"`
}

// RulesCheck asks expressions in CEL about the JSON view of an image. docs/pipeline.md describes the view.
type RulesCheck struct {
	// on_error: What becomes of images about which a rule could not tell: `reject` or `warn`. Default: `reject`.
	StageSettings `yaml:",inline"`
	// The rules.
	Rules []CELRule `yaml:"rules,omitempty"`
}

// CELRule is one expression.
type CELRule struct {
	// Name in findings and metrics.
	Name string `yaml:"name"`
	// Expression that must be true, such as `image.tag != "latest"`.
	Expression string `yaml:"expression"`
	// What it is asked about: `image`, once for all that is pushed, or `manifest`, for each that can be run. Default: `image`.
	Each string `yaml:"each,omitempty"`
	// What is wrong where it is false. Default: the expression.
	Message string `yaml:"message,omitempty"`
	// What to do about it.
	Fix string `yaml:"fix,omitempty"`
}

// ClamdCheck has every file of a layer looked at by a ClamAV daemon.
type ClamdCheck struct {
	// on_error: What becomes of images while the daemon cannot be reached: `reject` or `warn`. Default: `reject`.
	// within: Time for a layer. Default: `1m`.
	StageSettings `yaml:",inline"`
	// Where the daemon is: `unix:/run/clamav/clamd.ctl` or `tcp:127.0.0.1:3310`.
	Address string `yaml:"address,omitempty"`
	// Longest file that is looked at; a longer one is a finding. It must not exceed the daemon's `StreamMaxLength`. Default: `100MB`.
	MaxFile Bytes `yaml:"max_file,omitempty"`
	// How long a layer is not looked at again; new signatures find old malware. Default: `24h`.
	Rescan Duration `yaml:"rescan,omitempty"`
}

// WebhookCheck has images judged by a service, which gets their JSON view.
type WebhookCheck struct {
	// Name, to tell several apart.
	Name string `yaml:"name,omitempty"`
	// on_error: What becomes of images while the service cannot be reached: `reject` or `warn`. Default: `reject`.
	StageSettings `yaml:",inline"`
	// Where the service is.
	URL string `yaml:"url"`
	// How it is spoken to: `review`, a form like the admission reviews of Kubernetes, or `opa`, that of Open Policy Agent. Default: `review`.
	Form string `yaml:"form,omitempty"`
	// Time for one question. Default: `5s`.
	Timeout Duration `yaml:"timeout,omitempty"`
	// File with the key that requests are signed by (HMAC-SHA-256); white space around it does not count.
	SecretFile string `yaml:"secret_file,omitempty"`
	// The key as found in the file. It is shown by `dray check` as redacted, and cannot be set here.
	Secret auth.Secret `yaml:"secret,omitempty"`
}

// ExecCheck has images looked at by a program, such as a vulnerability scanner, which finds them as an OCI layout.
type ExecCheck struct {
	// Name, to tell several apart.
	Name string `yaml:"name,omitempty"`
	// on_error: What becomes of images about which the program could not tell: `reject` or `warn`. Default: `reject`.
	// within: Time for an image, in which it is written out and the program ends. Default: `20s`.
	StageSettings `yaml:",inline"`
	// The program and its arguments; no shell reads them. In each, `{layout}`, `{repository}`, `{tag}` and `{digest}` are replaced.
	Command []string `yaml:"command"`
	// `NAME=value` for the program, which sees nothing of dray's own environment but `PATH`.
	Environment []string `yaml:"environment,omitempty"`
	// Exit code that means findings; 0 means none, and others that the program could not tell. Default: `1`.
	Refuses int `yaml:"refuses,omitempty"`
	// Largest image that is written out. Default: `10GB`.
	MaxImage Bytes `yaml:"max_image,omitempty"`
	// Most address space of a process. Default: no bound.
	Memory Bytes `yaml:"memory,omitempty"`
	// Runs at a time. Default: `1`.
	AtOnce int `yaml:"at_once,omitempty"`
	// Where images are written out. Default: the directory for temporary files.
	Directory string `yaml:"directory,omitempty"`
	// User that the program runs as, by number, where dray runs as root. Default: dray's own.
	UID int `yaml:"uid,omitempty"`
	// Group that the program runs as, by number. Default: dray's own.
	GID int `yaml:"gid,omitempty"`
}
