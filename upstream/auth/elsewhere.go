package auth

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// [Transport.within] reports whether the first attempt at a request gets an authorization. Reads
// outside of /v2/ get no authorization, because they may be for a storage with the same host name
// as the registry. Such a storage refuses a signed URL that comes with an Authorization header
// (moby#50065).
func (t *Transport) within(req *http.Request) bool {
	return !reads(req) || strings.HasPrefix(strings.TrimSuffix(req.URL.Path, "/")+"/", t.base().Path)
}

func reads(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

// maxOthers bounds the number of other registries that a Transport has tokens for. Without a bound,
// the registry could fill the memory by redirects to ever more names.
const maxOthers = 64

// others has a Transport for each other registry that the registry redirects to. In the map known,
// the key of such a Transport is the part of its registry's URLs before /v2/.
type others struct {
	mu    sync.Mutex // guards known
	known map[string]*Transport
}

// [Transport.elsewhere] returns the RoundTripper for a request to a host other than the registry.
// This host may be another registry: some registries only redirect, for example from the host name
// of a project to ghcr.io. Reads below /v2/ of the other registry may need an anonymous token. The
// credentials of the first registry are never sent there.
func (t *Transport) elsewhere(req *http.Request) http.RoundTripper {
	path, _, below := strings.Cut(req.URL.Path, "/v2/")
	if !reads(req) || !below {
		return t.o.Base
	}
	origin := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: path}
	t.others.mu.Lock()
	defer t.others.mu.Unlock()
	other := t.others.known[origin.String()]
	if other == nil {
		if len(t.others.known) >= maxOthers || t.others.known == nil {
			t.others.known = map[string]*Transport{}
		}
		other = New(Options{Base: t.o.Base, Origin: &origin, UserAgent: t.o.UserAgent})
		t.others.known[origin.String()] = other
	}
	return other
}
