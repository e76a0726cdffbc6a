package config

// NamesCheck judges names. It judges the name of a repository before a client sends a byte, and a
// tag when the manifest comes. The rules for tags do not apply to pushes by digest or to tags that
// tools derive from digests, such as the tags of cosign.
type NamesCheck struct {
	// The action on findings: `enforce` rejects the image, `warn` reports them, `off` disables the
	// stage. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// The answer to a push while the registry cannot tell which image a tag points to now: `reject`
	// or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// Regular expressions, one of which must match the whole name of a repository. Default: all
	// names are allowed.
	Repositories []string `yaml:"repositories,omitempty"`
	// Regular expressions, one of which must match the whole tag. Default: all tags are allowed.
	Tags []string `yaml:"tags,omitempty"`
	// If `true`, tags must be semantic versions, such as `1.4.2` or `v1.4.2-rc.1`.
	Semver bool `yaml:"semver,omitempty"`
	// Patterns of forbidden tags, such as `latest`.
	ForbiddenTags []string `yaml:"forbidden_tags,omitempty"`
	// Patterns of tags that no push may move to another image.
	ImmutableTags []string `yaml:"immutable_tags,omitempty"`
	// Patterns of tags that are exempt from `immutable_tags`, such as `*-dev`.
	MutableTags []string `yaml:"mutable_tags,omitempty"`
}

// ShapeCheck judges the parts of an image: sizes, layers, platforms and media types. A bound of `0`
// is no bound.
type ShapeCheck struct {
	// The action on findings: `enforce` rejects the image, `warn` reports them, `off` disables the
	// stage. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// The answer to an image with layers that dray has not examined, if `max_uncompressed` is set:
	// `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// The most bytes of an image as stored. In an index, each image may have this many.
	MaxBytes Bytes `yaml:"max_bytes,omitempty"`
	// The most bytes of a layer as stored.
	MaxLayerBytes Bytes `yaml:"max_layer_bytes,omitempty"`
	// The most bytes that all layers of an image have together, uncompressed.
	MaxUncompressed Bytes `yaml:"max_uncompressed,omitempty"`
	// The most layers.
	MaxLayers int `yaml:"max_layers,omitempty"`
	// The most bytes of a manifest.
	MaxManifestBytes Bytes `yaml:"max_manifest_bytes,omitempty"`
	// The platforms that a pushed image must have, such as `linux/arm64`.
	RequiredPlatforms []string `yaml:"required_platforms,omitempty"`
	// The platforms that are allowed. Default: all.
	Platforms []string `yaml:"platforms,omitempty"`
	// Patterns of allowed media types of manifests and layers. Default: all.
	MediaTypes []string `yaml:"media_types,omitempty"`
	// If `true`, an image may have layers that clients fetch from elsewhere.
	ForeignLayers bool `yaml:"foreign_layers,omitempty"`
}

// MetadataCheck requires labels and annotations of every image.
type MetadataCheck struct {
	// The action on findings: `enforce` rejects the image, `warn` reports them, `off` disables the
	// stage. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// The labels and annotations that an image must have.
	Required []MetadataRequirement `yaml:"required,omitempty"`
}

// MetadataRequirement describes a label or an annotation.
type MetadataRequirement struct {
	// The key of the label or annotation, such as `org.opencontainers.image.source`.
	Key string `yaml:"key"`
	// The place of the key: `label`, in the configuration of the image; `annotation`, in its
	// manifest or index; or `either`. Default: `either`.
	In string `yaml:"in,omitempty"`
	// A regular expression that must match the whole value. Default: any value.
	Pattern string `yaml:"pattern,omitempty"`
	// The form of the value: `url`, `semver` or `time`. Default: any.
	Format string `yaml:"format,omitempty"`
}

// RuntimeCheck judges how an image would run.
type RuntimeCheck struct {
	// The action on findings: `enforce` rejects the image, `warn` reports them, `off` disables the
	// stage. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// The answer to an image with layers that dray has not examined, if `non_root` or `setuid` is set:
	// `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// If `true`, the user must not be root. If the user is a name, dray looks it up in the image's
	// `/etc/passwd`. In an image for Windows, the user must not be an administrator.
	NonRoot bool `yaml:"non_root,omitempty"`
	// If `true`, each environment variable that has a value, and whose name looks like the name of a
	// secret, is a finding.
	SecretVariables bool `yaml:"secret_variables,omitempty"`
	// Patterns of variable names that `secret_variables` ignores.
	HarmlessVariables []string `yaml:"harmless_variables,omitempty"`
	// The ports that an image may expose, such as `8080`, `8080/tcp` or `1024-65535`. Default: all.
	Ports []string `yaml:"ports,omitempty"`
	// If `true`, executable files with the set-user-ID or set-group-ID bit, or with capabilities, are
	// findings.
	SetUID bool `yaml:"setuid,omitempty"`
	// Patterns of paths, without a leading slash, of files that are exempt from `setuid`.
	SetUIDAllowed []string `yaml:"setuid_allowed,omitempty"`
	// If `true`, an `ADD` from a URL in the history of the image is a finding.
	AddFromURL bool `yaml:"add_from_url,omitempty"`
}
