package oci

import (
	_ "crypto/sha256" // digest.Digest.Validate knows only the algorithms that are linked
	_ "crypto/sha512"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxRepoBytes is the length, in bytes, of the longest repository name that dray accepts. It is the
// limit of the reference grammar (reference.RepositoryNameTotalLengthMax), and close to the 256
// characters of ECR's CreateRepository.
const MaxRepoBytes = reference.RepositoryNameTotalLengthMax

var tagPattern = regexp.MustCompile(`^(?:` + reference.TagRegexp.String() + `)$`)

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

// ParseReference parses the last path element of a manifest URL. The error is ErrDigestInvalid if
// the text has a colon, and ErrTagInvalid if it has none.
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

// derivedPattern expects 64 digits for sha256 and for sha512. A tag cannot have all 128 digits of a
// sha512 digest, so the specification uses the first 64.
var derivedPattern = regexp.MustCompile(`^sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?$`)

// DerivedTag reports whether a tag looks like the tags that tools derive from a digest when they
// attach content to an image. Such a tag is either the fallback tag of the specification
// ("Referrers Tag Schema"), or a tag of cosign, which ends in .sig, .att or .sbom.
func DerivedTag(tag string) bool { return derivedPattern.MatchString(tag) }

// FallbackTag returns the tag under which the referrers of d are listed in a registry without the
// referrers call (spec 1.1, "Referrers Tag Schema").
func FallbackTag(d digest.Digest) string {
	const maxAlgorithm, maxEncoded = 32, 64
	a, e := d.Algorithm().String(), d.Encoded()
	return a[:min(len(a), maxAlgorithm)] + "-" + e[:min(len(e), maxEncoded)]
}

// Short returns the algorithm of a digest, a colon, and the first 12 hexadecimal digits. It returns
// an invalid digest unchanged.
func Short(d digest.Digest) string {
	if d.Validate() != nil {
		return string(d)
	}
	return d.Algorithm().String() + ":" + d.Encoded()[:12]
}

// ParseDigest parses a sha256 or sha512 digest in lower case. The image specification registers
// these algorithms ("descriptor.md", Digests), and the cache stores content by both.
func ParseDigest(s string) (digest.Digest, error) {
	alg, hex, _ := strings.Cut(s, ":")
	known := alg == string(digest.SHA256) || alg == string(digest.SHA512)
	if known && len(hex) == digest.Algorithm(alg).Size()*2 && strings.Trim(hex, "0123456789abcdef") == "" {
		return digest.Digest(s), nil
	}
	if _, err := digest.Parse(s); err != nil {
		return "", ErrDigestInvalid.With("invalid digest %q: %w", clip(s), err)
	}
	return "", ErrDigestInvalid.With("unsupported digest algorithm %q", clip(alg))
}

// CheckRepo checks that the specification allows name as a repository name. The error is
// ErrNameInvalid.
func CheckRepo(name string) error {
	if len(name) > MaxRepoBytes {
		return ErrNameInvalid.With("invalid repository name %q", clip(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if !isComponent(part) {
			return ErrNameInvalid.With("invalid repository name %q", clip(name))
		}
	}
	return nil
}

// isComponent reports whether s is a component of a repository name: runs of lower-case letters and
// digits, with ".", "_", "__" or hyphens between them (spec 1.1, "Pulling manifests"). It uses no
// regular expression, because each request calls it.
func isComponent(s string) bool {
	for {
		rest := strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz0123456789")
		switch {
		case len(rest) == len(s):
			return false
		case rest == "":
			return true
		case rest[0] == '-':
			s = strings.TrimLeft(rest, "-")
		case strings.HasPrefix(rest, "__"):
			s = rest[2:]
		case rest[0] == '.' || rest[0] == '_':
			s = rest[1:]
		default:
			return false
		}
	}
}

// JoinRepo joins a prefix and a repository name with one slash. The prefix may be empty, and may
// end with a slash.
func JoinRepo(prefix, repo string) string {
	if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
		return repo
	}
	return prefix + "/" + repo
}

// clip shortens foreign text for messages and logs.
func clip(s string) string {
	const maxBytes = 128
	if len(s) > maxBytes {
		return s[:maxBytes] + "…"
	}
	return s
}
