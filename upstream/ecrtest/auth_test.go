package ecrtest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// Source: capture of wom.icu/today-i-learned/2023-09-11; containers-roadmap#299.
func TestChallenge(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.basic = ""
	a := r.get("/v2/").want(t, http.StatusUnauthorized, "", "Not Authorized\n")
	a.Header.Del("Date")
	want := http.Header{
		"Www-Authenticate":                {`Basic realm="https://` + ecrName + `/",service="ecr.amazonaws.com"`},
		"Docker-Distribution-Api-Version": {"registry/2.0"},
		"Sizes":                           {""},
		"Content-Type":                    {"text/plain; charset=utf-8"},
		"Content-Length":                  {"15"},
	}
	if diff := cmp.Diff(want, a.Header); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{"/v2/a/b/manifests/x", "/v2/a/b/tags/list", "/v2/a/b/blobs/uploads/"} {
		r.get(path).want(t, http.StatusUnauthorized, "", "Not Authorized\n")
	}
	// No Bearer and no token endpoint: absent from every capture.
	r.get("/v2/", "Authorization", "Bearer abc").want(t, http.StatusUnauthorized, "", "Not Authorized\n")
	r.get("/token?service=x").want(t, http.StatusNotFound, "", "")
}

// Source: ECR guide, registry_auth: a token is good for 12 hours.
// Source: awslabs/soci-snapshotter#1196: after that comes a 403 without challenge.
func TestExpiredToken(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.get("/v2/").want(t, http.StatusOK, "", "")
	r.Advance(12*time.Hour - time.Minute)
	r.get("/v2/").want(t, http.StatusOK, "", "")
	r.Advance(2 * time.Minute)
	a := r.get("/v2/").want(t, http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	if v, ok := a.Header["Www-Authenticate"]; ok {
		t.Errorf("challenge %q with the 403", v)
	}
	if a := r.head("/v2/"); a.Status != http.StatusForbidden || len(a.Body) > 0 {
		t.Errorf("HEAD: %d with %d bytes", a.Status, len(a.Body))
	}
	r.basic = r.Token("")
	r.get("/v2/").want(t, http.StatusOK, "", "")
	r.ExpireTokens()
	r.get("/v2/").want(t, http.StatusForbidden, "DENIED", "")
}

// Source: ECR guide, registry_auth and common-errors-docker: a token works in the region it was
// issued for only, and across all registries its principal may use there.
func TestTokenBoundToRegion(t *testing.T) {
	other, peer := ecrtest.RegistryID{Account: "123456789012", Region: "us-east-1"}, ecrtest.RegistryID{Account: "210987654321", Region: "eu-west-1"}
	r := start(t, ecrtest.Options{More: []ecrtest.RegistryID{other, peer}})
	for host, status := range map[string]int{
		ecrName: http.StatusOK,
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":      http.StatusBadRequest,
		"210987654321.dkr.ecr.eu-west-1.amazonaws.com":      http.StatusOK,
		"123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com": http.StatusOK,
		"123456789012.dkr-ecr.eu-west-1.on.aws":             http.StatusOK,
	} {
		r.host = host
		r.get("/v2/").want(t, status, "", "")
	}
}

// Source: Joxit/docker-registry-ui#255.
func TestHostDecides(t *testing.T) {
	r := start(t, ecrtest.Options{StrictHost: true, AcceptHosts: []string{"mirror.test", "exact.test:81"}})
	for _, host := range []string{"localhost", "example.com:5000", r.RegistryAddr, "999999999999.dkr.ecr.eu-west-1.amazonaws.com", "exact.test:82"} {
		r.host = host
		name, _, _ := strings.Cut(host, ":")
		r.get("/v2/").want(t, http.StatusBadRequest, "", "Could not resolve registry id from host "+name)
	}
	for _, host := range []string{ecrName, ecrName + ":443", "MIRROR.test:9", "exact.test:81"} {
		r.host = host
		r.get("/v2/").want(t, http.StatusOK, "", "")
	}
	loose := start(t, ecrtest.Options{})
	loose.host = loose.RegistryAddr
	loose.get("/v2/").want(t, http.StatusOK, "", "")
}

// Source: everything2#2562, aws/copilot-cli#3518: the text and the 403. A HEAD has no body (HTTP;
// containerd#13547).
func TestDenied(t *testing.T) {
	r := start(t, ecrtest.Options{Deny: []ecrtest.Denial{{Action: "ecr:BatchGetImage", Resource: "*:repository/secret/*"}}})
	r.image("secret/app", "v1", "layer")
	r.image("open/app", "v1", "layer")
	arn := "arn:aws:ecr:eu-west-1:123456789012:repository/secret/app"
	r.get("/v2/secret/app/manifests/v1").want(t, http.StatusForbidden, "DENIED", "User: arn:aws:iam::123456789012:user/dray is not authorized to perform: "+
		"ecr:BatchGetImage on resource: "+arn+" because no identity-based policy allows the ecr:BatchGetImage action")
	if a := r.head("/v2/secret/app/manifests/v1"); a.Status != http.StatusForbidden || len(a.Body) != 0 {
		t.Errorf("HEAD: %d with %d bytes", a.Status, len(a.Body))
	}
	r.get("/v2/open/app/manifests/v1").want(t, http.StatusOK, "", "")
	r.SetDenials()
	r.get("/v2/secret/app/manifests/v1").want(t, http.StatusOK, "", "")
	r.SetDenials(ecrtest.Denial{Principal: "*:user/other"})
	r.get("/v2/secret/app/manifests/v1").want(t, http.StatusOK, "", "")
	r.basic = r.Token("arn:aws:iam::123456789012:user/other")
	r.get("/v2/secret/app/tags/list").want(t, http.StatusForbidden, "DENIED", "")
}

// Only HTTP/1.1 was seen on ECR (docker/cli#4158 for S3); the option offers HTTP/2.
func TestProtocol(t *testing.T) {
	for h2, want := range map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"} {
		r := start(t, ecrtest.Options{SelfSigned: true, HTTP2: h2})
		r.http.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		r.get("/v2/").want(t, http.StatusOK, "", "")
		if got := r.Log()[0].Proto; got != want {
			t.Errorf("HTTP2 %v: %s, want %s", h2, got, want)
		}
	}
}

// Source: ECR model, ListImageReferrers: it needs ecr:BatchGetImage.
func TestReferrersNeedBatchGetImage(t *testing.T) {
	r := start(t, ecrtest.Options{})
	_, raw := r.image("team/app", "v1", "layer")
	list := "/v2/team/app/referrers/" + digest.FromBytes(raw).String()
	r.get(list).want(t, http.StatusOK, "", "")
	for _, action := range []string{"ecr:BatchGetImage", "ecr:ListImageReferrers"} {
		r.SetDenials(ecrtest.Denial{Action: action})
		if a := r.get(list).want(t, http.StatusForbidden, "DENIED", ""); !strings.Contains(a.message(), action) {
			t.Error(a.message())
		}
	}
}
