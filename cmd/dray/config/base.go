package config

// BaseCheck decides by what an image is built on. Images are known by their layers when they were pulled or pushed through dray in the last 90 days, or are listed.
type BaseCheck struct {
	// on_error: What becomes of images while it cannot be looked up which images are known: `reject` or `warn`. Default: `reject`.
	StageSettings `yaml:",inline"`
	// Patterns of whole names of images that others may be built on, such as `docker.io/library/debian:*`; `*` stands for any characters. The registry is called by the
	// first of the `hosts` of its upstream; an image that was pulled by digest alone is `docker.io/library/debian@sha256:…`.
	Allowed []string `yaml:"allowed,omitempty"`
	// What becomes of images that are built on none that is known: `reject` or `pass`. Default: `reject`.
	Unknown UnknownBase `yaml:"unknown,omitempty"`
	// Images of at most so many layers pass where their base is not known: they are taken for such as are built from scratch.
	Scratch int `yaml:"scratch,omitempty"`
	// Patterns of images, one of which each image that provenance declares as taken for the build must match. Default: all.
	Materials []string `yaml:"materials,omitempty"`
	// Images that are known without a pull.
	Images []BaseImage `yaml:"images,omitempty"`
}

// BaseImage is an image that is known by its layers.
type BaseImage struct {
	// Whole name, such as `docker.io/library/debian:bookworm`.
	Name string `yaml:"name"`
	// DiffIDs of its layers, the lowest first, as its configuration (`rootfs`) has them; `dray check-image --view` shows them.
	DiffIDs []string `yaml:"diff_ids"`
}
