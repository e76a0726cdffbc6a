package oci

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// Compressed reports whether the Content-Encoding of an answer is gzip. Proxies in front of
// registries compress answers that look like text. Some do so even if the request forbids it
// (registry.access.redhat.com, quay#1310).
func Compressed(resp *http.Response) bool {
	switch strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))) {
	case "gzip", "x-gzip":
		return true
	}
	return false
}

// Text returns the body of a JSON answer, decompressed. The caller bounds how much it reads. If the
// header says gzip but the body is not compressed, Text returns the body as it is.
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
