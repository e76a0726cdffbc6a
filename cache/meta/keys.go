package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The layout of keys and values. A change of either that an older binary would
// misread takes a new version, so that old facts are merely lost.
const (
	layout = "v1/"

	tagSpace     = layout + "tag/"     // upstream/repo/tag/accept → tagRecord
	forgetSpace  = layout + "forgot/"  // upstream/repo/tag → epoch
	linkSpace    = layout + "link/"    // upstream/repo/digest → linkRecord
	knownSpace   = layout + "known/"   // upstream/repo/digest → knownRecord
	homeSpace    = layout + "home/"    // upstream/digest → homeRecord
	touchSpace   = layout + "touch/"   // upstream/repo/digest → touchRecord
	verdictSpace = layout + "verdict/" // digest/check/revision → verdictRecord
	baseSpace    = layout + "base/"    // sum of diffIDs → baseRecord
	probeKey     = layout + "probe"    // never written; asked to learn whether a store answers
)

// path makes a key of a space and components. A component is escaped so that it
// holds neither a slash nor a bare percent sign: two different lists of
// components never give the same key, and a list that begins another gives a
// prefix of its key.
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

func tagKey(k TagKey) string {
	return path(tagSpace, k.Upstream, k.Repo, k.Tag, acceptSum(k.Accept))
}

func forgetKey(upstream, repo, tag string) string {
	return path(forgetSpace, upstream, repo, tag)
}

func linkKey(upstream, repo string, d digest.Digest) string {
	return path(linkSpace, upstream, repo, d.String())
}

func knownKey(upstream, repo string, d digest.Digest) string {
	return path(knownSpace, upstream, repo, d.String())
}

func homeKey(upstream string, d digest.Digest) string {
	return path(homeSpace, upstream, d.String())
}

func touchKey(upstream, repo string, d digest.Digest) string {
	return path(touchSpace, upstream, repo, d.String())
}

func verdictKey(d digest.Digest, check, revision string) string {
	return path(verdictSpace, d.String(), check, revision)
}

func baseKey(layers []digest.Digest) string {
	return path(baseSpace, baseSum(layers))
}

// acceptSum shortens a normalised Accept, which clients make hundreds of bytes
// long. It is always hashed: hashing only long ones would let a client choose a
// short one that looks like the hash of another.
func acceptSum(accept string) string {
	sum := sha256.Sum256([]byte(accept))
	return hex.EncodeToString(sum[:16])
}
