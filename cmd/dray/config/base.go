package config

// BaseCheck judges the base image on which an image is built. dray recognises a base image by its
// layers if somebody pulled or pushed it through dray in the last 90 days, or if `images` lists it.
// dray does not record an image that has more than 512 layers, or a configuration of more than 32
// MiB.
type BaseCheck struct {
	// on_error: The answer to an image while dray cannot look up its base: `reject` or `warn`.
	// Default: `reject`.
	StageSettings `yaml:",inline"`
	// Patterns of whole names of allowed base images, such as `docker.io/library/debian:*`; `*` stands
	// for any characters. The name of a base image that passed through dray begins with the first host
	// in `hosts` of the upstream of that base image. If clients pulled the base image by digest alone,
	// its name has the form `docker.io/library/debian@sha256:…`.
	Allowed []string `yaml:"allowed,omitempty"`
	// The answer to an image whose base dray does not know: `reject` or `pass`. Default: `reject`.
	Unknown UnknownBase `yaml:"unknown,omitempty"`
	// If an image has at most this number of layers, and dray does not know its base, dray assumes
	// that the image is built from scratch and lets it pass.
	Scratch int `yaml:"scratch,omitempty"`
	// Patterns of images. Each image that the provenance declares as used in the build must match one
	// of them. Default: all.
	Materials []string `yaml:"materials,omitempty"`
	// Base images that dray knows without a pull.
	Images []BaseImage `yaml:"images,omitempty"`
}

// BaseImage describes an image by its layers.
type BaseImage struct {
	// The whole name, such as `docker.io/library/debian:bookworm`.
	Name string `yaml:"name"`
	// The diffIDs of the image's layers, the lowest first, as in the image's configuration (`rootfs`).
	// `dray check-image --view` shows them.
	DiffIDs []string `yaml:"diff_ids"`
}
