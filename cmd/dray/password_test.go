package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/fixture"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/webhook"
	"dray/upstream/ecrtest"
)

// TestKeysAreReadAgain has the keys replaced that sign requests to the operator's services.
func TestKeysAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	fixture.Replace(t, path, "first\n")
	to, err := endpointOf(config.Notification{SecretFile: path, Secret: "first"}, watched.Watching(nil))
	if err != nil {
		t.Fatal(err)
	}
	var key string // with which requests should be signed
	asked := 0
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked++
		body, err := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(key))
		fmt.Fprintf(mac, "%s.%s", r.Header.Get(webhook.HeaderTime), body)
		if got := r.Header.Get(webhook.HeaderSignature); err != nil || got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
			t.Errorf("a webhook is not signed with %q: %s, %v", key, got, err)
		}
	}))
	defer service.Close()
	steps, err := stepsOf(config.Checks{Webhooks: []config.WebhookCheck{{
		StageSettings: config.StageSettings{Mode: config.Enforce}, URL: config.SecretURL(service.URL), SecretFile: path, Secret: "first",
	}}}, nil, watched.Watching(nil))
	if err != nil || len(steps) != 1 {
		t.Fatalf("%d stages, %v", len(steps), err)
	}
	for _, key = range []string{"first", "second"} {
		fixture.Replace(t, path, key+"\n")
		if got := string(to.Secret()); got != key {
			t.Errorf("notifications are signed with %q, want %q", got, key)
		}
		_, _ = steps[0].Stage.(pipeline.ImageStage).CheckImage(t.Context(), &pipeline.Image{}) // no answer is no verdict
		h := http.Header{}
		_ = h
	}
	if asked != 2 {
		t.Errorf("the webhook was asked %d times", asked)
	}
}

// TestPasswordIsReadAgain has an operator put a refused password right, in the middle of the pause
// after its refusal.
func TestPasswordIsReadAgain(t *testing.T) {
	for _, basic := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "password")
		fixture.Replace(t, path, "wrong\n")
		s := startDialect(t, ecrtest.Dialect{Basic: basic, Private: []string{"team/app"}}, &recording{}, asUserOf(path)...)
		seed(t, s.hub, "team/app", "v1", 100)
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		fixture.Replace(t, path, "") // is being written
		s.want(503, "GET", "/hub/v2/team/app/manifests/v1", nil)
		fixture.Replace(t, path, "right\n")
		s.want(200, "GET", "/hub/v2/team/app/manifests/v1", nil)
	}
}
