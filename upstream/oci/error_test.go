package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"dray/upstream/oci"
)

func TestWriteErrorRoundTrip(t *testing.T) {
	e := oci.ErrTooManyRequests.With("slow down")
	e.RetryAfter = 1500 * time.Millisecond
	e.Detail = json.RawMessage(`{"a":1}`)
	w := httptest.NewRecorder()
	oci.WriteError(w, fmt.Errorf("get x: %w", e))
	resp := w.Result()
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "2" {
		t.Errorf("got %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	got := oci.DecodeError(resp)
	if !errors.Is(got, oci.ErrTooManyRequests) || got.Message != "slow down" || string(got.Detail) != `{"a":1}` || got.RetryAfter != 2*time.Second {
		t.Errorf("decoded %+v", got)
	}
}

// The cause of an internal error may hold host and file names.
func TestWriteErrorHidesCauses(t *testing.T) {
	for _, err := range []error{
		errors.New("open /secret/path: boom"),
		oci.ErrUnavailable.Because(errors.New("dial 10.9.8.7 /secret/path: refused")),
	} {
		w := httptest.NewRecorder()
		if e := oci.WriteError(w, err); !strings.Contains(e.Error(), "secret") {
			t.Errorf("the log lost the cause: %v", e)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("the client sees %s", w.Body)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("not JSON: %s", w.Body)
		}
	}
}

func TestDecodeErrorWithoutJSON(t *testing.T) {
	for _, tc := range []struct {
		status int
		path   string
		want   *oci.Error
	}{
		{404, "/v2/a/manifests/x", oci.ErrManifestUnknown},
		{404, "/v2/a/blobs/sha256:x", oci.ErrBlobUnknown},
		{404, "/v2/a/blobs/uploads/x", oci.ErrBlobUploadUnknown},
		{404, "/v2/team/blobs/manifests/1", oci.ErrManifestUnknown},
		{404, "/v2/team/blobs/uploads/manifests/1", oci.ErrManifestUnknown},
		{404, "/v2/team/manifests/blobs/sha256:x", oci.ErrBlobUnknown},
		{404, "/v2/team/blobs/tags/list", oci.ErrNameUnknown},
		{404, "/v2/team/manifests/referrers/sha256:x", oci.ErrNameUnknown},
		{404, "/v2/team/tags/list/manifests/1", oci.ErrManifestUnknown},
		{404, "/v2/a/tags/list", oci.ErrNameUnknown},
		{401, "/v2/", oci.ErrUnauthorized},
		{403, "/v2/", oci.ErrDenied},
		{405, "/v2/", oci.ErrUnsupported},
		{416, "/v2/", oci.ErrRangeInvalid},
		{429, "/v2/", oci.ErrTooManyRequests},
		{502, "/v2/", oci.ErrUnavailable},
		{500, "/v2/", oci.ErrUnknown},
	} {
		resp := &http.Response{StatusCode: tc.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>")),
			Request: &http.Request{URL: &url.URL{Path: tc.path}}}
		if got := oci.DecodeError(resp); !errors.Is(got, tc.want) || got.Status != tc.status {
			t.Errorf("%d %s: got %v, want %v", tc.status, tc.path, got, tc.want)
		}
	}
}

// FuzzDecodeError: whatever an upstream sends, the result can be written again.
func FuzzDecodeError(f *testing.F) {
	f.Add(404, `{"errors":[{"code":"BLOB_UNKNOWN","message":"m","detail":{"x":1}}]}`, "3")
	f.Add(500, `{"errors":[{}]}`, "Wed, 21 Oct 2015 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		if status < 400 || status > 599 {
			t.Skip()
		}
		resp := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}, Body: io.NopCloser(strings.NewReader(body))}
		e := oci.DecodeError(resp)
		w := httptest.NewRecorder()
		oci.WriteError(w, e)
		if w.Code != status || !json.Valid(w.Body.Bytes()) || e.RetryAfter < 0 {
			t.Fatalf("%d %q → %+v → %s", status, body, e, w.Body)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "3601": time.Hour, "99999999999999999999": time.Hour, "-1": 0, "-99999999999999999999": 0,
		"soon": 0, "1.5": 0, "Fri, 31 Dec 9999 23:59:59 GMT": time.Hour, "Thu, 01 Jan 1970 00:00:00 GMT": 0,
	} {
		if got := oci.RetryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
