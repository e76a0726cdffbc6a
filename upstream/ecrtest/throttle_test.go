package ecrtest_test

import (
	"net/http"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

// Source: GGCR#750 for the 429, ECR guide (common errors) for the token bucket, ECR model for the
// API's answer.
func TestQuotas(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := start(t, ecrtest.Options{Clock: func() time.Time { return now },
		Quotas: map[string]ecrtest.Quota{"BatchGetImage": {Rate: 2, Burst: 3}, "DescribeRepositories": {Rate: 1, Burst: 1}}})
	r.image("team/app", "v1", "layer")
	get := func() answer { return r.get("/v2/team/app/manifests/v1") }
	for range 3 {
		get().want(t, http.StatusOK, "", "")
	}
	a := get().want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded")
	if v, ok := a.Header["Retry-After"]; ok {
		t.Errorf("Retry-After %s", v)
	}
	r.get("/v2/team/app/tags/list").want(t, http.StatusOK, "", "") // another operation has its own bucket
	r.Advance(time.Second)
	get().want(t, http.StatusOK, "", "")
	get().want(t, http.StatusOK, "", "")
	get().want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS", "")

	r.api("DescribeRepositories", struct{}{}).want(t, http.StatusOK, "", "")
	b := r.api("DescribeRepositories", struct{}{}).want(t, http.StatusBadRequest, "", "")
	if string(b.Body) != `{"__type":"ThrottlingException","message":"Rate exceeded"}` {
		t.Errorf("%s", b.Body)
	}
	r.SetQuotas(nil)
	for range 9 {
		get().want(t, http.StatusOK, "", "")
	}
}

// Source: the quotas page of the ECR guide.
func TestDefaultQuotas(t *testing.T) {
	q := ecrtest.DefaultQuotas()
	for op, rate := range map[string]float64{"BatchCheckLayerAvailability": 1000, "BatchGetImage": 2000, "GetDownloadUrlForLayer": 3000,
		"InitiateLayerUpload": 100, "UploadLayerPart": 500, "CompleteLayerUpload": 100, "PutImage": 10, "GetAuthorizationToken": 500} {
		if q[op].Rate != rate || q[op].Burst < rate {
			t.Errorf("%s: %+v", op, q[op])
		}
	}
	r := start(t, ecrtest.Options{Quotas: q, Clock: func() time.Time { return time.Unix(1772366400, 0) }})
	_, raw := r.image("team/app", "v0", "layer")
	for range 9 {
		r.putManifest("team/app", "v1", raw, "").want(t, http.StatusCreated, "", "")
	}
	r.putManifest("team/app", "v1", raw, "").want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded")
}
