package mirror

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"dray/cache/meta"
	"dray/mirror/route"
	"dray/upstream/oci"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// hot keeps what was found out from facts, so that asking the same again costs one
// look. Nothing here is older than the memory before the store of facts allows: each
// entry has a lease on what it was made of, which ends with any write to it.
type hot struct {
	answers *lru.Cache[asked, *hit]
	seen    *lru.Cache[sighting, sight]
}

// The bounds: 2,048 answers of at most 16 KiB, for requests of at most 2 KiB, are 36 MiB
// at worst. Almost all manifests are smaller, and share their bytes with the cache.
const (
	hotAnswers = 2048
	hotBytes   = 16 << 10
	hotRequest = 2 << 10
	hotSeen    = 8192
)

func newHot() hot {
	// They fail for sizes below 1 only.
	answers, _ := lru.New[asked, *hit](hotAnswers)
	seen, _ := lru.New[sighting, sight](hotSeen)
	return hot{answers, seen}
}

// asked is a request as it came. Of one listener equal ones mean the same.
type asked struct {
	listener                  *Listener
	method, host, uri, accept string
}

// askedFor is the key of a request, with no uri where it has none.
func askedFor(l *Listener, r *http.Request) asked {
	a := asked{listener: l, method: r.Method, host: r.Host, uri: r.RequestURI}
	switch lines := r.Header["Accept"]; len(lines) {
	case 0:
	case 1:
		a.accept = lines[0]
	default:
		a.accept = strings.Join(lines, ",")
	}
	if len(a.host)+len(a.uri)+len(a.accept) > hotRequest || r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.uri = ""
	}
	return a
}

// hit is an answer that was at hand, ready to be sent again. It is never written to.
type hit struct {
	q      oci.Request
	target route.Target
	up     *Upstream
	answer *answer
	// header has six lines at most: with the two of every answer they are as many as a
	// map holds before it grows.
	header []line
}

// line is a header line whose value many answers share.
type line struct {
	name  string
	value []string
}

// find returns the hit of a request. It may have gone stale: what a request means never
// changes, only its answer.
func (h hot) find(key asked) *hit {
	if key.uri == "" {
		return nil
	}
	known, _ := h.answers.Get(key)
	return known
}

func (k *hit) valid(now time.Time) bool {
	return k.answer.lease.Valid(now) && (k.answer.until.IsZero() || now.Before(k.answer.until))
}

// keep remembers an answer that needed no question, where its lease is worth something.
func (h hot) keep(x *exchange, a *answer) {
	if x.asked.uri == "" || len(a.raw) > hotBytes || !a.lease.Valid(time.Now()) {
		return
	}
	k := &hit{q: x.q, target: x.target, up: x.up, answer: a, header: []line{
		{"Docker-Content-Digest", []string{a.digest.String()}},
		{"Etag", []string{etag(a.digest)}},
		{"X-Cache", []string{a.source}},
		{"Content-Type", []string{a.mediaType}},
		{"Content-Length", []string{strconv.Itoa(len(a.raw))}},
	}}
	if x.q.Ref.ByDigest() {
		k.header = append(k.header, line{"Cache-Control", []string{immutable}})
	}
	h.answers.Add(x.asked, k)
}

// conditions are the header lines with which a request may want something else than
// the whole.
var conditions = []string{"Range", "If-None-Match", "If-Range"}

// sendHit is sendManifest for a hit.
func (x *exchange) sendHit(k *hit) error {
	for _, name := range conditions {
		if x.r.Header[name] != nil {
			return x.sendManifest(k.answer)
		}
	}
	x.digest, x.size = k.answer.digest, int64(len(k.answer.raw))
	h := x.w.Header()
	for _, l := range k.header {
		h[l.name] = l.value
	}
	x.w.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return nil
	}
	return x.w.SendWhole(k.answer.raw)
}

// sighting is the question whether a repository may see a digest.
type sighting struct {
	up     *Upstream
	repo   string
	digest digest.Digest
}

// sight is the answer that it may.
type sight struct {
	link  meta.LinkFact
	lease *meta.Lease
}
