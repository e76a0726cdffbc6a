package ecrtest

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// call is a parsed request to the registry.
type call struct {
	Kind    Kind
	Repo    string
	Tag     string        // tag of a manifest, or empty
	Digest  digest.Digest // digest of a manifest, blob or subject, or empty
	RawRef  string        // the reference as sent, even if it is neither tag nor digest
	Session string
}

// parseCall parses the method, the path, and "mount" in the query. Handlers parse the rest of the
// query. The name of a repository may contain the words of routes, so the path is parsed from its
// end.
func parseCall(r *http.Request) call {
	if r.URL.Path == "/token" || r.URL.Path == "/token/" {
		return call{Kind: KindToken}
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case rest == "/v2" || ok && rest == "":
		return call{Kind: readKind(KindBase).of(r.Method)}
	case !ok:
		return call{Kind: KindUnknown}
	case rest == "_catalog":
		return call{Kind: readKind(KindCatalog).of(r.Method)}
	}
	part := strings.Split(rest, "/")
	n := len(part)
	name := func(drop int) string { return strings.Join(part[:n-drop], "/") }
	switch {
	case n >= 4 && part[n-3] == "blobs" && part[n-2] == "uploads" && part[n-1] == "":
		return startCall(r, name(3))
	case n >= 4 && part[n-3] == "blobs" && part[n-2] == "uploads":
		return call{Kind: uploadKinds().of(r.Method), Repo: name(3), Session: part[n-1]}
	case n >= 3 && part[n-2] == "blobs" && part[n-1] == "uploads":
		return startCall(r, name(2))
	case n >= 3 && part[n-2] == "blobs":
		return refCall(blobKinds().of(r.Method), name(2), part[n-1])
	case n >= 3 && part[n-2] == "manifests":
		return refCall(manifestKinds().of(r.Method), name(2), part[n-1])
	case n >= 3 && part[n-2] == "referrers":
		return refCall(readKind(KindReferrers).of(r.Method), name(2), part[n-1])
	case n >= 3 && part[n-2] == "tags" && part[n-1] == "list":
		return call{Kind: readKind(KindTags).of(r.Method), Repo: name(2)}
	}
	return call{Kind: KindUnknown}
}

func startCall(r *http.Request, repo string) call {
	c := call{Kind: KindUnknown, Repo: repo}
	if r.Method == http.MethodPost {
		c.Kind = KindUploadStart
		if r.URL.Query().Has("mount") {
			c.Kind = KindMount
		}
	}
	return c
}

func refCall(k Kind, repo, ref string) call {
	c := call{Kind: k, Repo: repo, RawRef: ref}
	if strings.Contains(ref, ":") {
		if d, err := digest.Parse(ref); err == nil {
			c.Digest = d
		}
	} else if anchoredTag.MatchString(ref) {
		c.Tag = ref
	}
	return c
}

// These patterns match a whole tag, a whole name of a repository, and the ECR-shaped host names
// that AWS's credential helper accepts.
var (
	anchoredTag  = regexp.MustCompile(`^` + reference.TagRegexp.String() + `$`)
	anchoredName = regexp.MustCompile(`^` + repositoryName + `$`)
	registryHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|` +
		`on\.amazonwebservices\.com\.cn|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)
)

// repositoryName is the pattern for the names of repositories in AWS's model of the ECR API.
const repositoryName = `(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*/)*[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

// wildcard reports whether s matches a pattern in which * stands for any characters, as in IAM
// and in ECR's filters.
func wildcard(pattern, s string) bool {
	head, tail, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	rest, ok := strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	if tail == "" {
		return true
	}
	for i := range len(rest) + 1 {
		if wildcard(tail, rest[i:]) {
			return true
		}
	}
	return false
}
