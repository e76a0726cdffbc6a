package oci

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// Compressed reports whether the Content-Encoding of an answer is gzip. Proxies in front of
// registries compress what looks like text, some of them although the request forbids it
// (registry.access.redhat.com, quay#1310).
func Compressed(resp *http.Response) bool {
	switch strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))) {
	case "gzip", "x-gzip":
		return true
	}
	return false
}

// Text returns the body of an answer that is JSON, without the compression that it was sent with.
// The caller bounds what it reads. An answer that only claims to be compressed is returned as it
// is.
func Text(resp *http.Response) (io.Reader, error) {
	if !Compressed(resp) {
		return resp.Body, nil
	}
	body := bufio.NewReader(resp.Body)
	if magic, err := body.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return body, nil
	}
	return gzip.NewReader(body)
}
