package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"dray/mirror"
)

// The way that a listener sends files is the one that was configured, and splice by default.
func TestSend(t *testing.T) {
	for _, test := range []struct {
		setting string
		splices bool
		copies  bool
	}{{setting: "", splices: true}, {setting: "send: splice, ", splices: true}, {setting: "send: sendfile, "}, {setting: "send: copy, ", copies: true}} {
		s := startStack(t, t.TempDir(), "name: main, ", "name: main, "+test.setting)
		server := s.servers[0]
		if copies := server.Handler.(*mirror.Listener).CopyFiles; server.Splice != test.splices || copies != test.copies {
			t.Errorf("%q: splices %v, copies %v", test.setting, server.Splice, copies)
		}
	}
}

// A held blob whose file cannot be read to its end reaches the client whole: the rest comes from
// the registry. The blob is then fetched and kept anew.
func TestHeldBlobBreaks(t *testing.T) {
	for _, send := range []string{"splice", "sendfile", "copy"} {
		t.Run(send, func(t *testing.T) {
			dir := t.TempDir()
			s := startStack(t, dir, "upstreams: [ecr, hub]", "send: "+send+", upstreams: [ecr, hub]")
			img := seed(t, s.ecr, "team/app", "v1", 24<<20)
			at := "/v2/team/app/blobs/" + img.layer.String()
			s.want(200, "GET", at, nil)
			s.until(func() bool { return s.want(200, "GET", at, nil).Header.Get("X-Cache") == "disk" })
			before := s.ecr.Count("blob-get")
			resp, err := http.Get(s.url + at)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			hex := img.layer.Encoded()
			if err := os.Truncate(filepath.Join(dir, "content", "blobs", "sha256", hex[:2], hex), 20<<20); err != nil {
				t.Fatal(err)
			}
			verifier := img.layer.Verifier()
			if n, err := io.Copy(verifier, resp.Body); err != nil || !verifier.Verified() {
				t.Fatalf("%d bytes of %d: %v", n, resp.ContentLength, err)
			}
			if s.ecr.Count("blob-get") == before {
				t.Error("nothing was fetched: the kernel had sent everything")
			}
			s.until(func() bool { return s.want(200, "GET", at, nil).Header.Get("X-Cache") == "disk" })
		})
	}
}
