package pull

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/wire"
)

// An answer that would take too much memory is made of the facts each time.
func TestHotAnswersAreBounded(t *testing.T) {
	front := meta.NewCached(metatest.NewMemory(), meta.CachedOptions{Staleness: time.Hour})
	if err := front.Put(t.Context(), "fact", nil, 0); err != nil { // the lease of one that is not there ends within a second
		t.Fatal(err)
	}
	lease := &meta.Lease{}
	if _, err := meta.GetLeased(t.Context(), front, "fact", lease); err != nil || !lease.Valid(time.Now()) {
		t.Fatalf("no lease: %v", err)
	}
	p, l := &Puller{hot: newHot()}, &request.Listener{}
	asks := func(path string) *request.Request {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody)
		return request.New(l, nil, httptest.NewRecorder(), r, wire.Options{})
	}
	keeps := func(path string, bytesOfAnswer int) bool {
		a := &answer{Manifest: &repository.Manifest{Raw: bytes.Repeat([]byte(" "), bytesOfAnswer), Lease: lease}, source: fromCache}
		p.hot.add(asks(path), a)
		return p.Hit(asks(path)) != nil
	}
	for i := range 2 * hotAnswers {
		if !keeps("/v2/team/app/manifests/v1?n="+strconv.Itoa(i), hotBytes) {
			t.Fatalf("answer %d is not kept", i)
		}
	}
	if n := p.hot.answers.Len(); n != hotAnswers {
		t.Errorf("%d answers, want %d", n, hotAnswers)
	}
	if keeps("/v2/team/app/manifests/v1?n="+strings.Repeat("x", hotRequest), 1) {
		t.Error("a request of any length is kept")
	}
	if keeps("/v2/team/app/manifests/big", hotBytes+1) {
		t.Error("a manifest of any size is kept")
	}
}
