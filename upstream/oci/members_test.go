package oci

import (
	"errors"
	"strings"
	"testing"
)

// A manifest means the same to everybody who reads it, or is refused.
func TestCheckMembers(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	const config = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digest + `","size":0}`
	for text, wrong := range map[string]string{
		`{"schemaVersion":2,"config":` + config + `,"layers":[` + config + `,` + config + `],"annotations":{"Config":"1","config":"2"}}`:                   "",
		`{"schemaVersion":2,"config":` + config + `,"layers":[],"else":{"layers":1,"Layers":2},"x":[[{"x":1,"x":2}]]}`:                                     "",
		`{"schemaVersion":2,"manifests":[{"mediaType":"` + MediaTypeOCIManifest + `","digest":"` + digest + `","size":1,"platform":{"os":"a","OS":"b"}}]}`: "",
		`{"schemaVersion":2,"config":` + config + `,"Config":` + config + `,"layers":[]}`:                                                                  `some clients read its member "Config" as "config"`,
		`{"schemaVersion":2,"config":` + config + `,"layers":[],"layerſ":[]}`:                                                                              `as "layers"`,
		`{"schemaVersion":2,"config":` + config + `,"layers":[],"layers":[]}`:                                                                              `"layers" twice`,
		`{"schemaVersion":2,"config":` + config + `,"layers":[` + strings.Replace(config, `"size"`, `"Digest":"`+digest+`","size"`, 1) + `]}`:              `member "Digest" as "digest"`,
		`{"schemaVersion":2,"config":` + config + `,"layers":[[` + strings.Replace(config, `"size"`, `"size":7,"size"`, 1) + `]]}`:                         `"size" twice`,
	} {
		err := CheckMembers([]byte(text))
		if wrong == "" && err != nil || wrong != "" && (!errors.Is(err, ErrManifestInvalid) || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v, want %q", text, err, wrong)
		}
	}
}
