package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// keys returns the keys of Redis that match a pattern.
func (f *fleetOf) keys(pattern string) (keys []string) {
	f.Helper()
	for line := range strings.Lines(f.redis.Do("KEYS", pattern)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "$") {
			keys = append(keys, line)
		}
	}
	return keys
}

// TestFleetForgedFacts has somebody who can write to Redis, and does not know the secret, make a
// layer visible in a repository that does not have it.
func TestFleetForgedFacts(t *testing.T) {
	f := startFleet(t, 2, "whole", patient)
	seed(t, f.hub, "library/other", "v1", 1000)
	f.manifests()
	f.pull(f.members[0]).ends()
	pattern := "dray:fleet/v1/link/*/" + url.PathEscape("library/cold") + "/" + f.image.layer.String()
	f.eventually("fact about the layer", func() bool { return len(f.keys(pattern)) == 1 })
	key := f.keys(pattern)[0]
	forged := strings.Replace(key, "cold", "other", 1)
	_, value, _ := strings.Cut(f.redis.Do("GET", key), "\r\n")
	value = strings.TrimSuffix(value, "\r\n")
	if !strings.HasSuffix(value, `"k":"blob"}`) {
		t.Fatalf("the fact is %q", value)
	}
	plain := value[strings.LastIndex(value, " ")+1:]
	for i, text := range []string{value, plain} { // copied, and without a proof
		if got := f.redis.Do("SET", forged, text); !strings.HasPrefix(got, "+OK") {
			t.Fatal(got)
		}
		resp, err := get(t.Context(), f.members[i].url+"/v2/library/other/blobs/"+f.image.layer.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("with the fact %q: %s", text, resp.Status)
		}
	}
}
