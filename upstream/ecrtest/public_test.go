package ecrtest_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// Sources: lablup/backend.ai#2549 (status and length of the answers), containers-roadmap#2835 (400
// without a challenge), containers-roadmap#2671 (HEAD of blobs), ECR Public guide, registry-auth
// (the exchange, as docker login does it).
func TestPublic(t *testing.T) {
	r := start(t, ecrtest.Options{Quirks: ecrtest.Public()})
	r.basic, r.host = "", "public.ecr.aws"
	if _, err := r.Seed(ecrtest.SeedImage{Repository: "docker/library/alpine", Tag: "3"}); err != nil {
		t.Fatal(err)
	}
	const manifest = "/v2/docker/library/alpine/manifests/3"
	a := r.get("/v2/").want(t, http.StatusUnauthorized, "DENIED", "")
	if c := a.Header.Get("Www-Authenticate"); len(a.Body) != 58 || c != `Bearer realm="http://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"` {
		t.Errorf("%d bytes, challenge %s", len(a.Body), c)
	}
	a = r.get("/v2/", "Authorization", "Bearer garbage").want(t, http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid.")
	if _, challenged := a.Header["Www-Authenticate"]; len(a.Body) != 80 || challenged {
		t.Errorf("%d bytes, challenged %t", len(a.Body), challenged)
	}
	exchange := func(headers ...string) string {
		t.Helper()
		var answer struct{ Token string }
		unmarshal(t, r.get("/token/?service=public.ecr.aws&scope=aws", headers...).want(t, http.StatusOK, "", "").Body, &answer)
		return "Bearer " + answer.Token
	}
	anonymous := exchange()
	r.get(manifest, "Authorization", anonymous).want(t, http.StatusOK, "", "")
	if a := r.head("/v2/docker/library/alpine/blobs/"+digest.FromString("x").String(), "Authorization", anonymous); a.Status != http.StatusUnauthorized {
		t.Errorf("HEAD of a blob: %d", a.Status)
	}
	if a := r.do(http.MethodPost, "/v2/docker/library/alpine/blobs/uploads/", nil, "Authorization", anonymous); a.Status != http.StatusForbidden {
		t.Errorf("anonymous push: %d", a.Status)
	}

	cfg := awsConfig(t, r.Running)
	client := ecrpublic.NewFromConfig(cfg, func(o *ecrpublic.Options) { o.Region, o.BaseEndpoint = "us-east-1", &r.APIURL })
	out, err := client.GetAuthorizationToken(t.Context(), &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := base64.StdEncoding.DecodeString(*out.AuthorizationData.AuthorizationToken)
	if err != nil || len(plain) < 100 {
		t.Fatalf("%s, %v", plain, err)
	}
	user := exchange("Authorization", "Basic "+*out.AuthorizationData.AuthorizationToken)
	r.do(http.MethodPost, "/v2/docker/library/alpine/blobs/uploads/", nil, "Authorization", user).want(t, http.StatusAccepted, "", "")
	r.get("/token/", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("AWS:garbage"))).want(t, http.StatusBadRequest, "DENIED", "")
	r.ExpireTokens()
	r.get(manifest, "Authorization", user).want(t, http.StatusBadRequest, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")

	for _, action := range []string{"ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"} {
		r.SetDenials(ecrtest.Denial{Action: action})
		if _, err := client.GetAuthorizationToken(t.Context(), &ecrpublic.GetAuthorizationTokenInput{}); err == nil {
			t.Errorf("a token without %s", action)
		}
	}
}
