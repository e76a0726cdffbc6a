package oci_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"dray/upstream/oci"
)

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func TestText(t *testing.T) {
	const plain = `{"errors":[{"code":"DENIED","message":"no"}]}`
	for name, c := range map[string]struct{ encoding, body, want string }{
		"plain":                {"", plain, plain},
		"gzip":                 {"gzip", zipped(plain), plain},
		"x-gzip":               {"X-GZip", zipped(plain), plain},
		"identity":             {"identity", plain, plain},
		"said but not done":    {"gzip", plain, plain},
		"said, and empty":      {"gzip", "", ""},
		"compressed by itself": {"", zipped(plain), zipped(plain)},
		"cut":                  {"gzip", zipped(plain)[:20], "error"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := func() *http.Response {
				return &http.Response{StatusCode: 403, Header: http.Header{"Content-Encoding": {c.encoding}}, Body: io.NopCloser(strings.NewReader(c.body))}
			}
			r, err := oci.Text(answer())
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
			}
			if (err != nil) != (c.want == "error") || err == nil && string(got) != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if e := oci.DecodeError(answer()); c.want == plain && e.Message != "no" {
				t.Errorf("the error is %v", e)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("gzip", []byte(zipped("{}")))
	f.Add("gzip", []byte("{}"))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {encoding}}, Body: io.NopCloser(bytes.NewReader(body))}
		r, err := oci.Text(resp)
		if err != nil {
			return
		}
		got, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err == nil && !oci.Compressed(resp) && len(body) <= 1<<20 && !bytes.Equal(got, body) {
			t.Errorf("%q with encoding %q was changed", body, encoding)
		}
	})
}
