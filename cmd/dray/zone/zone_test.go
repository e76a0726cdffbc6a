package zone_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dray/cmd/dray/zone"
)

func TestMain(m *testing.M) {
	zone.Wait(2 * time.Minute)
	goleak.VerifyTestMain(m)
}

// instance stands in for the metadata of an instance, which asks for a token (IMDSv2).
func instance(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			fmt.Fprint(w, "token")
		case r.Method == http.MethodGet && r.URL.Path == "/latest/meta-data/placement/availability-zone-id" && r.Header.Get("X-Aws-Ec2-Metadata-Token") == "token":
			answer(w, r)
		default:
			t.Errorf("%s %s", r.Method, r.URL.Path)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s.URL)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
}

// task stands in for the metadata of a task.
func task(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v4/container-1/task", answer)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Setenv("ECS_CONTAINER_METADATA_URI_V4", s.URL+"/v4/container-1")
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T)
		want    string
	}{
		"an instance":                     {func(t *testing.T) { instance(t, says("use1-az1\n")) }, "use1-az1"},
		"an instance that has no zone ID": {func(t *testing.T) { instance(t, http.NotFound) }, ""},
		"no zone":                         {func(t *testing.T) { instance(t, says("<html>")) }, ""},
		"a long answer":                   {func(t *testing.T) { instance(t, says(strings.Repeat("a", 1<<20))) }, ""},
		"an empty answer":                 {func(t *testing.T) { instance(t, says("")) }, ""},
		"a task": {func(t *testing.T) {
			instance(t, says("use1-az1"))
			task(t, says(`{"Cluster":"c","AvailabilityZone":"us-east-1a","Containers":[]}`))
		}, "us-east-1a"},
		"a task that does not say it": {func(t *testing.T) { task(t, says(`{"Cluster":"c"}`)) }, ""},
		"a task without an answer":    {func(t *testing.T) { task(t, http.NotFound) }, ""},
		"a task with another answer":  {func(t *testing.T) { task(t, says("no JSON")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ECS_CONTAINER_METADATA_URI_V4", "")
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			c.prepare(t)
			got, err := zone.Find(t.Context())
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("found %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestFindNotAsked: a variable switches the question off.
func TestFindNotAsked(t *testing.T) {
	t.Setenv("ECS_CONTAINER_METADATA_URI_V4", "")
	var asked atomic.Int64
	instance(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); fmt.Fprint(w, "use1-az1") })
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if got, err := zone.Find(t.Context()); got != "" || err == nil || asked.Load() != 0 {
		t.Errorf("switched off: %q, %v, asked %d times", got, err, asked.Load())
	}
}

// TestFindEnds: a question ends with its context, when nobody answers.
func TestFindEnds(t *testing.T) {
	t.Setenv("ECS_CONTAINER_METADATA_URI_V4", "")
	ctx, cancel := context.WithCancel(t.Context())
	instance(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	if got, err := zone.Find(ctx); got != "" || err == nil {
		t.Errorf("found %q, %v", got, err)
	}
}
