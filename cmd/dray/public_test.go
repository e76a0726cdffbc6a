package main

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// beforePublic starts dray before an ECR Public, under the prefix pub, with further settings.
func beforePublic(t *testing.T, public *ecrtest.Running, settings string) *stack {
	t.Helper()
	return startBefore(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		"- name: hub", "- {name: pub, url: \"http://public.ecr.aws\", address: \""+public.RegistryAddr+"\", prefixes: [pub], prefetch: {enabled: false}, api_url: \""+public.APIURL+"\""+settings+"}\n- name: hub",
		"upstreams: [ecr, hub]", "upstreams: [ecr, hub, pub]")
}

// Pulls of ECR Public go by a token of the AWS API where that is configured, and otherwise without
// one. Both go on when the registry refuses the token with 400.
func TestPublicECR(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/dray"
	for name, test := range map[string]struct {
		settings string
		calls    int64
	}{
		"anonymous":       {"", 0},
		"AWS credentials": {", credentials: {aws: true}", 1},
		"role":            {", role_arn: \"" + role + "\", external_id: x", 1},
	} {
		t.Run(name, func(t *testing.T) {
			public := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Public(), ExternalIDs: map[string]string{role: "x"}})
			t.Setenv("AWS_ENDPOINT_URL_STS", public.APIURL)
			img := seed(t, public, "docker/library/alpine", "3", 5000)
			s := beforePublic(t, public, test.settings)
			s.want(200, "GET", "/v2/pub/docker/library/alpine/manifests/3", nil)
			if r := s.want(200, "GET", "/v2/pub/docker/library/alpine/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
				t.Error("other bytes")
			}
			if n := public.Count("GetAuthorizationToken"); n != test.calls {
				t.Errorf("%d calls of GetAuthorizationToken, want %d", n, test.calls)
			}
			if n := public.Count(ecrtest.KindToken); n != 1 {
				t.Errorf("%d exchanges, want 1", n)
			}
			if test.calls == 0 {
				public.ExpireTokens()
			}
			seed(t, public, "docker/library/alpine", "4", 5000)
			s.want(200, "GET", "/v2/pub/docker/library/alpine/manifests/4", nil)
		})
	}
}

// Without the right to a token, pulls of ECR Public do not silently become anonymous.
func TestPublicECRDenied(t *testing.T) {
	public := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Public(), Deny: []ecrtest.Denial{{Action: "sts:GetServiceBearerToken"}}})
	seed(t, public, "docker/library/alpine", "3", 5000)
	s := beforePublic(t, public, ", credentials: {aws: true}")
	if r := s.do("GET", "/v2/pub/docker/library/alpine/manifests/3", nil); r.StatusCode/100 == 2 || public.Count(ecrtest.KindManifestGet) != 0 || !strings.Contains(string(r.body), "sts:GetServiceBearerToken") {
		t.Errorf("%s %s", r.Status, r.body)
	}
}

// ECR Public takes pushes with a token of the AWS API.
func TestPublicECRPush(t *testing.T) {
	public := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Public()})
	public.CreateRepository("alias/app")
	s := beforePublic(t, public, ", push: true, credentials: {aws: true}")
	man := s.push("pub/alias/app", "1", []byte("a layer"), []byte("another layer"))
	if got, ok := public.Image("alias/app", "1"); !ok || got.Digest != man.Digest {
		t.Errorf("the registry has %+v", got)
	}
}
