package pull

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/request"
)

// hot caches answers that were made of facts, so that a repeated request costs one look-up. Each
// entry has a lease on its facts, and any write to these facts ends the lease. So a hot answer is
// never older than an answer that is made anew from the facts in memory ([meta.Cached]).
type hot struct{ answers *lru.Cache[hotKey, *Hit] }

// hotAnswers bounds the number of answers, hotBytes the size of an answer, and hotRequest the size
// of a request. Together they bound the memory to 36 MiB. Almost all manifests are smaller than
// hotBytes. An answer shares the bytes of its manifest with the cache.
const (
	hotAnswers = 2048
	hotBytes   = 16 << 10
	hotRequest = 2 << 10
)

func newHot() hot {
	answers, _ := lru.New[hotKey, *Hit](hotAnswers) // fails for sizes below 1 only
	return hot{answers}
}

// hotKey has the parts of a request that select the content of the answer, as the client sent them.
// Requests with equal keys have the same Meaning.
type hotKey struct {
	listener                  *request.Listener
	method, host, uri, accept string
}

// hotKeyOf returns the key of a request. Its uri is empty if the request cannot have a hot
// answer.
func hotKeyOf(x *request.Request) hotKey {
	l, r := x.Listener, x.R
	k := hotKey{listener: l, method: r.Method, host: r.Host, uri: r.RequestURI}
	switch lines := r.Header["Accept"]; len(lines) {
	case 0:
	case 1:
		k.accept = lines[0]
	default:
		k.accept = strings.Join(lines, ",")
	}
	if len(k.host)+len(k.uri)+len(k.accept) > hotRequest || r.Method != http.MethodGet && r.Method != http.MethodHead || x.Vouched != nil {
		// A request that another member passes on (Vouched) has no hot answer, because each such request
		// has a Listener of its own: its key would match no later request.
		k.uri = ""
	}
	return k
}

// Hit is a hot answer, ready to be sent again. It is immutable.
type Hit struct {
	Meaning request.Meaning
	answer  *answer
	// header has the lines that describe the manifest.
	header []line
}

// line is a header line whose value is shared by many answers.
type line struct {
	name  string
	value []string
}

// Hit returns the last answer to the same request, or nil. The answer may be out of date, but its
// Meaning is valid, because it depends only on the request. See [Puller.Again].
func (p *Puller) Hit(x *request.Request) *Hit {
	key := hotKeyOf(x)
	if key.uri == "" {
		return nil
	}
	known, _ := p.hot.answers.Get(key)
	return known
}

// Again answers a request with a hit. If the hit is out of date, the answer comes from
// [Puller.Manifest]. The caller must have checked the rights of the client.
func (p *Puller) Again(x *request.Request, k *Hit) error {
	if !k.Valid(time.Now()) {
		return p.Manifest(x)
	}
	x.Source = k.answer.source
	x.PullsManifest(k.answer.Manifest)
	return p.pulled(x, k.answer, k.send(x))
}

// Valid reports whether the answer may still be sent.
func (k *Hit) Valid(now time.Time) bool {
	return k.answer.Lease.Valid(now) && (k.answer.until.IsZero() || now.Before(k.answer.until))
}

// add caches an answer, if its lease is valid and it is within the bounds. Callers add only answers
// for which they did not ask the upstream.
func (h hot) add(x *request.Request, a *answer) {
	key := hotKeyOf(x)
	if key.uri == "" || len(a.Raw) > hotBytes || !a.Lease.Valid(time.Now()) {
		return
	}
	k := &Hit{Meaning: x.Meaning, answer: a, header: []line{
		{"Docker-Content-Digest", []string{a.Digest.String()}},
		{"Etag", []string{request.ETag(a.Digest)}},
		{"X-Cache", []string{a.source}},
		{"Content-Type", []string{a.MediaType}},
		{"Content-Length", []string{strconv.Itoa(len(a.Raw))}},
	}}
	if x.Q.Ref.ByDigest() {
		k.header = append(k.header, line{"Cache-Control", []string{request.Immutable}})
	}
	h.answers.Add(key, k)
}

// conditionalHeaders are the header lines by which a request may ask for something other than
// the whole manifest.
var conditionalHeaders = []string{"Range", "If-None-Match", "If-Range"}

// send is [request.Request.SendManifest] for a hit.
func (k *Hit) send(x *request.Request) error {
	for _, name := range conditionalHeaders {
		if x.R.Header[name] != nil {
			return x.SendManifest(k.answer.Manifest)
		}
	}
	x.Describe(k.answer.Digest, int64(len(k.answer.Raw)))
	h := x.W.Header()
	for _, l := range k.header {
		h[l.name] = l.value
	}
	x.CountSent()
	x.W.WriteHeader(http.StatusOK)
	if x.R.Method == http.MethodHead {
		return nil
	}
	return x.W.SendWhole(k.answer.Raw)
}
