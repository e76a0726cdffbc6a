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
	"slices"
	"testing"

	"dray/cmd/dray/config"
	"dray/cmd/dray/services"
	"dray/cmd/dray/watched"
	"dray/mirror/fixture"
	"dray/mirror/notify"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/webhook"
	"dray/upstream/auth"
	"dray/upstream/ecrtest"
)

// secretFiles are the files with the secrets of a service and of a program.
type secretFiles struct{ url, headers, key, variables string }

// write sets what all files say.
func (f secretFiles) write(t *testing.T, url, secret string) {
	t.Helper()
	fixture.Replace(t, f.url, url+"/"+secret+"\n")
	fixture.Replace(t, f.headers, "# for the gateway\nAuthorization: Bearer "+secret+"\nX-Both: "+secret+"\n\n")
	fixture.Replace(t, f.key, secret+"\n")
	fixture.Replace(t, f.variables, "# for the scanner\nTOKEN="+secret+" \nBOTH="+secret+"\n")
}

// wants reports as errors what is wrong with a request to a service, if the files have secret.
func wants(t *testing.T, r *http.Request, secret string) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%s", r.Header.Get(webhook.HeaderTime), body)
	if got := r.Header.Get(webhook.HeaderSignature); err != nil || got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("%s is not signed with %q: %s, %v", r.URL, secret, got, err)
	}
	h := r.Header
	if r.URL.Path != "/"+secret || h.Get("Authorization") != "Bearer "+secret || h.Get("X-Both") != secret || h.Get("X-Inline") != "yes" {
		t.Errorf("want the secret %q: %s, headers %v", secret, r.URL, h)
	}
}

// Services and scanners get the secrets that their files have at the time. A file that is being
// written changes nothing.
func TestSecretsAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	f := secretFiles{filepath.Join(dir, "url"), filepath.Join(dir, "headers"), filepath.Join(dir, "key"), filepath.Join(dir, "variables")}
	var secret string
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked[r.Header.Get("Content-Type")]++
		wants(t, r, secret)
	}))
	defer server.Close()
	f.write(t, server.URL, "first")
	service := config.Service{
		URLFile: f.url, SecretFile: f.key, HeadersFile: f.headers, Headers: map[string]auth.Secret{"x-inline": "yes", "x-both": "inline"},
	}
	on := config.StageSettings{Mode: config.Enforce}
	steps, err := stepsOf(config.Checks{Webhooks: []config.WebhookCheck{{StageSettings: on, Service: service}}}, nil, watched.Watching(nil))
	if err != nil || len(steps) != 1 {
		t.Fatalf("%d stages, %v", len(steps), err)
	}
	to, err := endpointOf(config.Notification{Service: service}, watched.Watching(nil))
	if err != nil {
		t.Fatal(err)
	}
	variables, err := services.Variables(config.ExecCheck{EnvironmentFile: f.variables, Environment: []config.Variable{"BOTH=inline", "INLINE=yes"}}, watched.Watching(nil))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []string{"first", "second"} {
		secret = s
		f.write(t, server.URL, secret)
		for range 2 {
			_, _ = steps[0].Stage.(pipeline.ImageStage).CheckImage(t.Context(), &pipeline.Image{}) // no answer is no verdict
			if _, err := to.Do(t.Context(), http.DefaultClient, notify.MediaType, []byte("{}")); err != nil {
				t.Error(err)
			}
			if got := variables(); !slices.Equal(got, []string{"TOKEN=" + secret + " ", "BOTH=" + secret, "INLINE=yes"}) {
				t.Errorf("variables %q, want the secret %q", got, secret)
			}
			for _, file := range []string{f.url, f.headers, f.key, f.variables} {
				fixture.Replace(t, file, []string{"", "x"}[i]+"\n")
			}
			fixture.Replace(t, f.key, "") // any text is a key
		}
	}
	if asked["application/json"] != 4 || asked[notify.MediaType] != 4 {
		t.Errorf("asked %v", asked)
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
