package pull

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/request"
)

// hot keeps answers that were made of facts, so that asking the same again costs one look. Nothing
// here is older than the memory before the store of facts allows: each entry has a lease on what it
// was made of, which ends with any write to it.
type hot struct{ answers *lru.Cache[asked, *Hit] }

// The bounds: 2,048 answers of at most 16 KiB, for requests of at most 2 KiB, are 36 MiB
// at worst. Almost all manifests are smaller, and share their bytes with the cache.
const (
	hotAnswers = 2048
	hotBytes   = 16 << 10
	hotRequest = 2 << 10
)

func newHot() hot {
	answers, _ := lru.New[asked, *Hit](hotAnswers) // fails for sizes below 1 only
	return hot{answers}
}

// asked is a request as it came. Of one listener equal ones mean the same.
type asked struct {
	listener                  *request.Listener
	method, host, uri, accept string
}

// askedFor is the key of a request, with no uri where it has none.
func askedFor(x *request.Request) asked {
	l, r := x.Listener, x.R
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

// Hit is an answer that was at hand, ready to be sent again. It is never written to.
type Hit struct {
	// Meaning is what its request means.
	Meaning request.Meaning
	answer  *answer
	// header has six lines at most: with the two of every answer they are as many as a
	// map holds before it grows.
	header []line
}

// line is a header line whose value many answers share.
type line struct {
	name  string
	value []string
}

// Hit returns what was answered to the same request before, or nil. It may be out of date: what a
// request means never changes, only its answer. See [Puller.Again].
func (p *Puller) Hit(x *request.Request) *Hit {
	key := askedFor(x)
	if key.uri == "" {
		return nil
	}
	known, _ := p.hot.answers.Get(key)
	return known
}

// Again answers a request, whose rights have been checked, with a hit; where that is out of date,
// as if it was not there.
func (p *Puller) Again(x *request.Request, k *Hit) error {
	if !k.Valid(time.Now()) {
		return p.Manifest(x)
	}
	x.Source = k.answer.source
	return p.pulled(x, k.answer, k.send(x))
}

// Valid reports whether the answer is not out of date.
func (k *Hit) Valid(now time.Time) bool {
	return k.answer.Lease.Valid(now) && (k.answer.until.IsZero() || now.Before(k.answer.until))
}

// add remembers an answer that needed no question, where its lease is worth something.
func (h hot) add(x *request.Request, a *answer) {
	key := askedFor(x)
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

// conditions are the header lines with which a request may want something else than
// the whole.
var conditions = []string{"Range", "If-None-Match", "If-Range"}

// send is [request.Request.SendManifest] for a hit.
func (k *Hit) send(x *request.Request) error {
	for _, name := range conditions {
		if x.R.Header[name] != nil {
			return x.SendManifest(k.answer.Manifest)
		}
	}
	x.Describe(k.answer.Digest, int64(len(k.answer.Raw)))
	h := x.W.Header()
	for _, l := range k.header {
		h[l.name] = l.value
	}
	x.W.WriteHeader(http.StatusOK)
	if x.R.Method == http.MethodHead {
		return nil
	}
	return x.W.SendWhole(k.answer.Raw)
}
