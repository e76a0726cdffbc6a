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

// What would take too much memory is answered from the facts.
func TestHotAnswersAreBounded(t *testing.T) {
	front := meta.NewFronted(metatest.NewMemory(), meta.FrontOptions{Staleness: time.Hour})
	lease := &meta.Lease{}
	_, _ = meta.NewTags(front, meta.TagsOptions{}).Under(lease).Get(t.Context(), meta.TagKey{Upstream: "up", Repo: "app", Tag: "v1"}) // there is none
	if !lease.Valid(time.Now()) {
		t.Fatal("no lease")
	}
	p, l := &Puller{hot: newHot()}, &request.Listener{}
	asks := func(path string) *request.Request {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody)
		return request.New(l, nil, httptest.NewRecorder(), r, wire.Options{})
	}
	keeps := func(path string, bytesOfAnswer int) bool {
		a := &answer{Manifest: &repository.Manifest{Raw: bytes.Repeat([]byte(" "), bytesOfAnswer), Lease: lease}, source: fromCache}
		p.hot.keep(asks(path), a)
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
