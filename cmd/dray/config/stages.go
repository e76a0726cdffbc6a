package config

// StageSettings are the keys that most stages have. If a key has another meaning or default in one
// stage, the comment above the embedded StageSettings of that stage describes the key, in the form
// "within: The time that …".
type StageSettings struct {
	// The action on findings: `enforce` rejects the image, `warn` reports them, `off` disables the
	// stage. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// The answer to an image that the stage could not judge: `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// The time that the stage has for an image. Default: `10s`.
	Within Duration `yaml:"within,omitempty"`
}

// SecretsCheck finds credentials in files, in configurations and in annotations. It recognises a
// file with credentials by its content or by its path. It also finds credentials in a file that a
// later layer deletes, because anybody can still download that file. Findings show a fingerprint,
// never the secret; a waiver can name the fingerprint.
type SecretsCheck struct {
	// within: The time that the stage has for a layer. Default: `1m`.
	StageSettings `yaml:",inline"`
	// The built-in rules to leave out; docs/pipeline.md lists them.
	Without []string `yaml:"without,omitempty"`
	// The number of bytes that dray searches at the beginning of each file. Default: all.
	MaxFile Bytes `yaml:"max_file,omitempty"`
}

// AttestationsCheck reads BuildKit's declarations about an image, which are in the image's index.
// Nothing proves a declaration: anybody who may push can write one.
type AttestationsCheck struct {
	StageSettings `yaml:",inline"`
	// If `true`, every image must declare its provenance.
	Provenance bool `yaml:"provenance,omitempty"`
	// If `true`, every image must declare its SBOM.
	SBOM bool `yaml:"sbom,omitempty"`
	// Patterns of builders, one of which the provenance must name; `*` stands for any characters.
	Builders []string `yaml:"builders,omitempty"`
	// Patterns of source repositories, one of which the provenance must name.
	Sources []string `yaml:"sources,omitempty"`
}

// RulesCheck evaluates expressions in CEL on the JSON view of an image. docs/pipeline.md describes
// the view.
type RulesCheck struct {
	// on_error: The answer to an image that a rule could not judge: `reject` or `warn`. Default:
	// `reject`.
	StageSettings `yaml:",inline"`
	// The rules.
	Rules []CELRule `yaml:"rules,omitempty"`
}

// CELRule is one rule.
type CELRule struct {
	// The name in findings and metrics.
	Name string `yaml:"name"`
	// The expression that must be true, such as `image.tag != "latest"`.
	Expression string `yaml:"expression"`
	// The subject of the expression. With `image`, dray evaluates it once for the whole push; with
	// `manifest`, once for each manifest that can be run. Default: `image`.
	Each string `yaml:"each,omitempty"`
	// The message of the finding if the expression is false. Default: the expression.
	Message string `yaml:"message,omitempty"`
	// The advice on what to do about the finding.
	Fix string `yaml:"fix,omitempty"`
}

// ClamdCheck lets a ClamAV daemon scan every file of a layer.
type ClamdCheck struct {
	// on_error: The answer to an image while the daemon cannot be reached: `reject` or `warn`.
	// Default: `reject`. within: The time that the stage has for a layer. Default: `1m`.
	StageSettings `yaml:",inline"`
	// The address of the daemon: `unix:/run/clamav/clamd.ctl` or `tcp:127.0.0.1:3310`.
	Address string `yaml:"address,omitempty"`
	// The size of the largest file that dray sends to the daemon; a larger file is a finding. The size
	// must not exceed the daemon's `StreamMaxLength`. Default: `100MB`.
	MaxFile Bytes `yaml:"max_file,omitempty"`
	// The longest time for which dray uses the result of a scan. After that time, it scans the layer
	// again at the next push, because new signatures may find malware in old layers. Default: `24h`.
	Rescan Duration `yaml:"rescan,omitempty"`
}

// WebhookCheck asks a service to judge images. The service gets their JSON view.
type WebhookCheck struct {
	// A name that distinguishes several services.
	Name string `yaml:"name,omitempty"`
	// on_error: The answer to an image while the service cannot be reached: `reject` or `warn`.
	// Default: `reject`.
	StageSettings `yaml:",inline"`
	Service       `yaml:",inline"`
	// The form of the request: `review`, like the admission reviews of Kubernetes, or `opa`, as Open
	// Policy Agent expects it. Default: `review`.
	Form string `yaml:"form,omitempty"`
}

// ExecCheck runs a program that judges images, such as a vulnerability scanner. The program gets
// the image as an OCI layout.
type ExecCheck struct {
	// A name that distinguishes several programs.
	Name string `yaml:"name,omitempty"`
	// on_error: The answer to an image that the program could not judge: `reject` or `warn`. Default:
	// `reject`. within: The time for an image, in which dray writes out the image and the program
	// judges it. Default: `20s`.
	StageSettings `yaml:",inline"`
	// The program and its arguments; dray uses no shell. dray replaces `{layout}`, `{repository}`,
	// `{tag}` and `{digest}` in each of them. `dray check` redacts arguments that look like secrets.
	Command Command `yaml:"command"`
	// Variables for the program, as `NAME=value`. `dray check` shows the values redacted. Of dray's
	// own environment, the program sees only `PATH`.
	Environment []Variable `yaml:"environment,omitempty"`
	// A file with further variables, one in each line, as `NAME=value`. They replace variables of the
	// same name in `environment`. dray ignores empty lines and lines that begin with `#`, and reads
	// the file again when it changes.
	EnvironmentFile string `yaml:"environment_file,omitempty"`
	// The exit code that means findings. 0 means no findings. Any other code means that the program
	// could not judge the image. Default: `1`.
	Refuses int `yaml:"refuses,omitempty"`
	// The size of the largest image that dray writes out. Default: `10GB`.
	MaxImage Bytes `yaml:"max_image,omitempty"`
	// The most address space of a process. Default: no bound.
	Memory Bytes `yaml:"memory,omitempty"`
	// The most runs at the same time. Default: `1`.
	AtOnce int `yaml:"at_once,omitempty"`
	// The directory in which dray writes out images. Default: the directory for temporary files, or
	// `/tmp` if the program's user cannot enter that directory.
	Directory string `yaml:"directory,omitempty"`
	// The number of the user that the program runs as, if dray runs as root. If dray does not run as
	// root, the program runs as the user of dray. Default: `65534`, which owns nothing.
	UID int `yaml:"uid,omitempty"`
	// The number of the group that the program runs as, if dray runs as root. Default: `65534`.
	GID int `yaml:"gid,omitempty"`
}
