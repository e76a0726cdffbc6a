package oci

import (
	_ "crypto/sha256" // digest.Digest.Validate knows an algorithm only when it is linked
	_ "crypto/sha512"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxRepoBytes is the longest repository name that is accepted. It is the limit
// of the reference grammar (reference.RepositoryNameTotalLengthMax), and close
// to the 256 characters of ECR's CreateRepository.
const MaxRepoBytes = reference.RepositoryNameTotalLengthMax

var (
	repoPattern = regexp.MustCompile(`^(?:` + reference.NameRegexp.String() + `)$`)
	tagPattern  = regexp.MustCompile(`^(?:` + reference.TagRegexp.String() + `)$`)
)

// Reference names one manifest of a repository, by tag or by digest. Exactly one
// of the fields is set.
type Reference struct {
	Tag    string
	Digest digest.Digest
}

// String is the form used in a URL: the tag, or the digest.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// ByDigest reports whether the reference cannot move.
func (r Reference) ByDigest() bool { return r.Digest != "" }

// ParseReference reads the last path element of a manifest URL. The error is
// ErrDigestInvalid for what looks like a digest and ErrTagInvalid otherwise.
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

// derivedPattern has 64 characters for sha512 too: the tag of all 128 would be longer than a tag
// may be, and the specification cuts it.
var derivedPattern = regexp.MustCompile(`^sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?$`)

// DerivedTag reports a tag that tools derive from a digest, to put what describes an image beside
// it: that of the specification ("Referrers Tag Schema"), or one of cosign's, which ends in .sig,
// .att or .sbom.
func DerivedTag(tag string) bool { return derivedPattern.MatchString(tag) }

// Short is as much of a digest as people compare: the algorithm and 12 characters. What is no
// digest stays as it is.
func Short(d digest.Digest) string {
	if d.Validate() != nil {
		return string(d)
	}
	return d.Algorithm().String() + ":" + d.Encoded()[:12]
}

// ParseDigest accepts sha256 and sha512 digests in lower case, the algorithms
// that the image specification registers ("descriptor.md", Digests) and the
// store can address.
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

// CheckRepo reports whether name is a repository name of the spec. The error is
// ErrNameInvalid.
func CheckRepo(name string) error {
	if name == "" || len(name) > MaxRepoBytes || !repoPattern.MatchString(name) || !lowerPath(name) {
		return ErrNameInvalid.With("invalid repository name %q", clip(name))
	}
	return nil
}

// JoinRepo returns the name that a repository has below a prefix, with one slash between them.
// The prefix may be empty, and may end with a slash.
func JoinRepo(prefix, repo string) string {
	if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
		return repo
	}
	return prefix + "/" + repo
}

// lowerPath refuses what the reference grammar allows only because its first
// component may be a host name (upper case, a port).
func lowerPath(name string) bool {
	return !strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ:[]")
}

// clip bounds what a stranger wrote before it goes into a message or a log.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
