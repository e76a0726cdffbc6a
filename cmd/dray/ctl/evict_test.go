package ctl

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"dray/mirror/admin/api"
)

// TestEvictGoesOn: dray bounds the blobs of one request, and evict asks until the bytes are freed
// or nothing is left that dray may evict.
func TestEvictGoesOn(t *testing.T) {
	blob := api.Victim{Blob: api.Blob{Digest: "sha256:a", Size: 3}}
	for _, tc := range []struct {
		answers []api.Evicted // as the server gives them; an error then
		asked   []int64
		left    int64
		victims int
		failed  bool
	}{
		{[]api.Evicted{{Victims: []api.Victim{blob}}}, []int64{10}, 0, 1, false},
		{[]api.Evicted{{Victims: []api.Victim{blob, blob}, LeftBytes: 4}, {Victims: []api.Victim{blob}}}, []int64{10, 4}, 0, 3, false},
		{[]api.Evicted{{Victims: []api.Victim{blob}, LeftBytes: 7}, {LeftBytes: 7}}, []int64{10, 7}, 7, 1, false},
		{[]api.Evicted{{LeftBytes: 10}}, []int64{10}, 10, 0, false},
		{[]api.Evicted{{Victims: []api.Victim{blob}, LeftBytes: 7}}, []int64{10, 7}, 7, 1, true},
		{nil, []int64{10}, 0, 0, true},
	} {
		var asked []int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q api.EvictRequest
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost || r.URL.Path != api.Prefix+"evict" {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
			asked = append(asked, q.Bytes)
			if len(asked) > len(tc.answers) {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(tc.answers[len(asked)-1])
		}))
		var out strings.Builder
		err := (&operator{base: s.URL, client: s.Client(), stdout: &out, json: true}).evict(t.Context(), 10)
		s.Close()
		if (err != nil) != tc.failed || !slices.Equal(asked, tc.asked) {
			t.Errorf("%+v: asked for %v, %v", tc, asked, err)
		}
		if tc.answers == nil { // nothing was evicted, so there is only the error
			if out.Len() > 0 {
				t.Errorf("%+v: %s", tc, &out)
			}
			continue
		}
		var got api.Evicted
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || len(got.Victims) != tc.victims || got.LeftBytes != tc.left {
			t.Errorf("%+v: %s, %v", tc, &out, err)
		}
	}
}
