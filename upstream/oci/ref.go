package oci

import (
	_ "crypto/sha256" // digest.Digest.Validate knows only the algorithms that are linked
	_ "crypto/sha512"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxRepoBytes is the longest repository name that is accepted. It is the limit of the
// reference grammar (reference.RepositoryNameTotalLengthMax), and close to the 256 characters
// of ECR's CreateRepository.
const MaxRepoBytes = reference.RepositoryNameTotalLengthMax

var (
	repoPattern = regexp.MustCompile(`^(?:` + reference.NameRegexp.String() + `)$`)
	tagPattern  = regexp.MustCompile(`^(?:` + reference.TagRegexp.String() + `)$`)
)

// Reference names a manifest in a repository, by tag or by digest. Exactly one field is set.
type Reference struct {
	Tag    string
	Digest digest.Digest
}

// String returns the form used in a URL: the tag or the digest.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// ByDigest reports whether the reference is a digest, so that its content never changes.
func (r Reference) ByDigest() bool { return r.Digest != "" }

// ParseReference parses the last path element of a manifest URL. The error is ErrDigestInvalid
// for text with a colon and ErrTagInvalid otherwise.
func ParseReference(s string) (Reference, error) {
	if strings.ContainsRune(s, ':') {
		d, err := ParseDigest(s)
		return Reference{Digest: d}, err
	}
	if !tagPattern.MatchString(s) {
		return Reference{}, ErrTagInvalid.With("invalid tag %q", clip(s))
	}
	return Reference{Tag: s}, nil
}

// derivedPattern has 64 characters for sha512 too: a tag cannot hold all 128, so the specification
// cuts them to 64.
var derivedPattern = regexp.MustCompile(`^sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?$`)

// DerivedTag reports whether a tag is derived from a digest, by a tool that attaches content to
// an image: the fallback tag of the specification ("Referrers Tag Schema"), or a tag of cosign,
// which ends in .sig, .att or .sbom.
func DerivedTag(tag string) bool { return derivedPattern.MatchString(tag) }

// FallbackTag returns the tag under which the referrers of d are listed in a registry without
// the referrers call (spec 1.1, "Referrers Tag Schema").
func FallbackTag(d digest.Digest) string {
	const maxAlgorithm, maxEncoded = 32, 64
	a, e := d.Algorithm().String(), d.Encoded()
	return a[:min(len(a), maxAlgorithm)] + "-" + e[:min(len(e), maxEncoded)]
}

// Short returns the algorithm and the first 12 characters of a digest. It returns an invalid
// digest unchanged.
func Short(d digest.Digest) string {
	if d.Validate() != nil {
		return string(d)
	}
	return d.Algorithm().String() + ":" + d.Encoded()[:12]
}

// ParseDigest parses a sha256 or sha512 digest in lower case. The image specification registers
// these algorithms ("descriptor.md", Digests), and the cache stores content by both.
func ParseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", ErrDigestInvalid.With("invalid digest %q: %w", clip(s), err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", ErrDigestInvalid.With("unsupported digest algorithm %q", clip(a.String()))
	}
	return d, nil
}

// CheckRepo checks that name is a repository name of the spec. The error is ErrNameInvalid.
func CheckRepo(name string) error {
	if name == "" || len(name) > MaxRepoBytes || !repoPattern.MatchString(name) || !lowerPath(name) {
		return ErrNameInvalid.With("invalid repository name %q", clip(name))
	}
	return nil
}

// JoinRepo joins a prefix and a repository name with one slash. The prefix may be empty, and
// may end with a slash.
func JoinRepo(prefix, repo string) string {
	if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
		return repo
	}
	return prefix + "/" + repo
}

// lowerPath reports whether a name has neither upper case nor a port. The reference grammar allows
// these only because its first component may be a host name.
func lowerPath(name string) bool {
	return !strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ:[]")
}

// clip shortens foreign text for messages and logs.
func clip(s string) string {
	const maxBytes = 128
	if len(s) > maxBytes {
		return s[:maxBytes] + "…"
	}
	return s
}
