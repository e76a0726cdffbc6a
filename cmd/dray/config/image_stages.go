package config

// NamesCheck decides by names: repositories before a byte is sent, tags when the manifest comes. Tags that tools derive from digests, such as cosign's, and pushes by
// digest are not asked for their tags.
type NamesCheck struct {
	// What becomes of findings: `enforce`, `warn` or `off`. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// What becomes of a push while the registry cannot be asked what a tag is now: `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// Regular expressions, one of which must fit the whole name of a repository. Default: all names are allowed.
	Repositories []string `yaml:"repositories,omitempty"`
	// Regular expressions, one of which must fit the whole tag. Default: all tags are allowed.
	Tags []string `yaml:"tags,omitempty"`
	// Whether tags must be semantic versions, such as `1.4.2` or `v1.4.2-rc.1`.
	Semver bool `yaml:"semver,omitempty"`
	// Patterns of tags that are forbidden, such as `latest`.
	ForbiddenTags []string `yaml:"forbidden_tags,omitempty"`
	// Patterns of tags that are never moved to another image.
	ImmutableTags []string `yaml:"immutable_tags,omitempty"`
	// Patterns of those that may be moved all the same, such as `*-dev`.
	MutableTags []string `yaml:"mutable_tags,omitempty"`
}

// ShapeCheck decides by what an image consists of. A bound of `0` is none.
type ShapeCheck struct {
	// What becomes of findings: `enforce`, `warn` or `off`. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// What becomes of images with layers that nobody has looked at, where `max_uncompressed` is set: `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// Most bytes of an image as stored, for each platform.
	MaxBytes Bytes `yaml:"max_bytes,omitempty"`
	// Most bytes of a layer as stored.
	MaxLayerBytes Bytes `yaml:"max_layer_bytes,omitempty"`
	// Most bytes of an image's layers, uncompressed.
	MaxUncompressed Bytes `yaml:"max_uncompressed,omitempty"`
	// Most layers.
	MaxLayers int `yaml:"max_layers,omitempty"`
	// Most bytes of a manifest.
	MaxManifestBytes Bytes `yaml:"max_manifest_bytes,omitempty"`
	// Platforms that must be there, such as `linux/arm64`.
	RequiredPlatforms []string `yaml:"required_platforms,omitempty"`
	// Platforms that may be there. Default: all.
	Platforms []string `yaml:"platforms,omitempty"`
	// Patterns of media types of manifests and layers. Default: all.
	MediaTypes []string `yaml:"media_types,omitempty"`
	// Whether layers may be such as are fetched from elsewhere.
	ForeignLayers bool `yaml:"foreign_layers,omitempty"`
}

// MetadataCheck asks for labels and annotations of every image.
type MetadataCheck struct {
	// What becomes of findings: `enforce`, `warn` or `off`. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// What must be there.
	Required []MetadataRequirement `yaml:"required,omitempty"`
}

// MetadataRequirement is a label or an annotation.
type MetadataRequirement struct {
	// Its key, such as `org.opencontainers.image.source`.
	Key string `yaml:"key"`
	// Where it stands: `label`, in the configuration of the image; `annotation`, in its manifest or index; or `either`. Default: `either`.
	In string `yaml:"in,omitempty"`
	// Regular expression that must fit the whole value. Default: any value.
	Pattern string `yaml:"pattern,omitempty"`
	// Form of the value: `url`, `semver` or `time`. Default: any.
	Format string `yaml:"format,omitempty"`
}

// RuntimeCheck decides by how an image would run.
type RuntimeCheck struct {
	// What becomes of findings: `enforce`, `warn` or `off`. Default: `off`.
	Mode CheckMode `yaml:"mode,omitempty"`
	// What becomes of images with layers that nobody has looked at: `reject` or `warn`. Default: `reject`.
	OnError OnError `yaml:"on_error,omitempty"`
	// Whether the user must be another than root. A name is looked up in the image's `/etc/passwd`.
	NonRoot bool `yaml:"non_root,omitempty"`
	// Whether variables with names like those of secrets are refused, where they have a value.
	SecretVariables bool `yaml:"secret_variables,omitempty"`
	// Patterns of variables that are none.
	HarmlessVariables []string `yaml:"harmless_variables,omitempty"`
	// Ports that may be exposed, such as `8080`, `8080/tcp` or `1024-65535`. Default: all.
	Ports []string `yaml:"ports,omitempty"`
	// Whether files with the set-user-ID or set-group-ID bit are refused.
	SetUID bool `yaml:"setuid,omitempty"`
	// Patterns of paths, without a leading slash, that may have it.
	SetUIDAllowed []string `yaml:"setuid_allowed,omitempty"`
	// Whether `ADD` from URLs is refused, as the history of the image tells.
	AddFromURL bool `yaml:"add_from_url,omitempty"`
}
