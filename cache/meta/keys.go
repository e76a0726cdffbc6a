package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Every key begins with the constant layout, which is the version of keys and values. A change that
// an older binary would misread gets a new version. The older and the newer binary then do not find
// each other's facts.
const (
	layout = "v1/"

	tagSpace      = layout + "tag/"     // upstream/repo/tag/accept → tagRecord
	forgetSpace   = layout + "forgot/"  // upstream/repo/tag → epoch
	absentSpace   = layout + "absent/"  // upstream/repo/digest/kind/accept → absentRecord
	returnSpace   = layout + "return/"  // upstream/repo/digest → epoch
	linkSpace     = layout + "link/"    // upstream/repo/digest → linkRecord
	presenceSpace = layout + "known/"   // upstream/repo/digest → presenceRecord
	homeSpace     = layout + "home/"    // upstream/digest → homeRecord
	transitSpace  = layout + "transit/" // upstream/repo/digest → transitRecord
	uploadSpace   = layout + "upload/"  // id → uploadRecord
	touchSpace    = layout + "touch/"   // upstream/repo/digest → touchRecord
	verdictSpace  = layout + "verdict/" // digest/check/revision → verdictRecord
	baseSpace     = layout + "base/"    // hash of diffIDs → baseRecord
	probeKey      = layout + "probe"    // never written; read to check whether a store answers
)

// path makes a key from a space and components. Each component is escaped, so that it has neither a
// slash nor a bare percent sign. Different lists of components give different keys. If a list
// begins with all components of a shorter list, its key begins with the key of the shorter list.
func path(space string, components ...string) string {
	var b strings.Builder
	b.WriteString(space)
	for i, c := range components {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(c))
	}
	return b.String()
}

// split is the inverse of path for n components.
func split(space, key string, n int) ([]string, bool) {
	rest, ok := strings.CutPrefix(key, space)
	if !ok {
		return nil, false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != n {
		return nil, false
	}
	for i, p := range parts {
		plain, err := url.PathUnescape(p)
		if err != nil {
			return nil, false
		}
		parts[i] = plain
	}
	return parts, true
}

// upstreamPrefix returns the prefix of all keys of a space that are about an upstream. If upstream
// is empty, upstreamPrefix returns the prefix of all keys of the space.
func upstreamPrefix(space, upstream string) string {
	if upstream == "" {
		return space
	}
	return path(space, upstream, "")
}

// splitUpstream splits a key into its space, the upstream that it is about, and the rest behind the
// slash after the upstream. ok is false if the key does not name an upstream.
func splitUpstream(key string) (space, upstream, rest string, ok bool) {
	for _, space := range []string{tagSpace, forgetSpace, absentSpace, returnSpace, linkSpace, presenceSpace, homeSpace, touchSpace, transitSpace} {
		if after, found := strings.CutPrefix(key, space); found {
			escaped, rest, more := strings.Cut(after, "/")
			upstream, err := url.PathUnescape(escaped)
			return space, upstream, rest, more && err == nil
		}
	}
	return "", "", "", false
}

// upstreamOf returns the upstream that a key is about. ok is false if the key does not name an
// upstream.
func upstreamOf(key string) (upstream string, ok bool) {
	_, upstream, _, ok = splitUpstream(key)
	return upstream, ok
}

func (k TagKey) key() string {
	return path(tagSpace, k.Upstream, k.Repo, k.Tag, acceptSum(k.Accept))
}

// forgetKey is the key of the [epoch] of a tag. It is the same for every Accept.
func (k TagKey) forgetKey() string { return path(forgetSpace, k.Upstream, k.Repo, k.Tag) }

// parseTagKey is the inverse of [TagKey.key]. It restores Accept only if Accept is [Referrers],
// because the key has only a hash of Accept.
func parseTagKey(key string) (TagKey, bool) {
	parts, ok := split(tagSpace, key, 4)
	if !ok {
		return TagKey{}, false
	}
	k := TagKey{Upstream: parts[0], Repo: parts[1], Tag: parts[2]}
	if parts[3] == acceptSum(Referrers) {
		k.Accept = Referrers
	}
	return k, true
}

func (k AbsentKey) key() string {
	return path(absentSpace, k.Upstream, k.Repo, k.Digest.String(), string(k.Kind), acceptSum(k.Accept))
}

// returnedKey is the key of the epoch of a digest. It is the same for every kind and Accept.
func (k AbsentKey) returnedKey() string {
	return digestKey{k.Upstream, k.Repo, k.Digest}.in(returnSpace)
}

// digestKey names a digest in a repository.
type digestKey struct {
	upstream, repo string
	digest         digest.Digest
}

func (k digestKey) in(space string) string {
	return path(space, k.upstream, k.repo, k.digest.String())
}

// digestKeyIn returns the inverse of [digestKey.in] for a space.
func digestKeyIn(space string) func(key string) (digestKey, bool) {
	return func(key string) (digestKey, bool) {
		parts, ok := split(space, key, 3)
		if !ok || checkDigest(digest.Digest(parts[2])) != nil {
			return digestKey{}, false
		}
		return digestKey{parts[0], parts[1], digest.Digest(parts[2])}, true
	}
}

// String returns the digest with its repository, for messages.
func (k digestKey) String() string { return k.upstream + "/" + k.repo + "@" + k.digest.String() }

// homeKey is the key of the homeRecord of a digest at an upstream.
func homeKey(upstream string, d digest.Digest) string { return path(homeSpace, upstream, d.String()) }

// verdictKey is the key of the answer that a check, in one of its revisions, gave about a digest.
func verdictKey(d digest.Digest, check, revision string) string {
	return path(verdictSpace, d.String(), check, revision)
}

// baseKey is the key of an image with these layers. The key has only a hash of the layers, because
// an image can have many layers.
func baseKey(layers []digest.Digest) string {
	var all strings.Builder
	for _, d := range layers {
		all.WriteString(d.String() + "\n")
	}
	return path(baseSpace, digest.FromString(all.String()).Encoded())
}

// acceptSum hashes a normalised Accept, which can have hundreds of bytes. Short values are hashed,
// too, because a client could otherwise choose a short Accept that looks like the hash of another
// Accept.
func acceptSum(accept string) string {
	sum := sha256.Sum256([]byte(accept))
	return hex.EncodeToString(sum[:16])
}
