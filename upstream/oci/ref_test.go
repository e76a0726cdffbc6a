package oci_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

func TestDerivedTag(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for tag, want := range map[string]bool{
		"sha256-" + hex: true, "sha512-" + hex: true, "sha256-" + hex + ".sig": true, "sha256-" + hex + ".att": true, "sha256-" + hex + ".sbom": true,
		"": false, "sha256-latest": false, "sha256-" + hex[1:]: false, "sha256-" + hex + "0": false, "sha384-" + hex: false,
		"sha256-" + strings.ToUpper(hex): false, "sha256-" + hex + ".exe": false, "sha512-" + hex + hex: false, "v1-sha256-" + hex: false,
	} {
		if got := oci.DerivedTag(tag); got != want {
			t.Errorf("DerivedTag(%q) = %v", tag, got)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[digest.Digest]string{
		digest.Digest("sha256:" + strings.Repeat("0a", 32)): "sha256:0a0a0a0a0a0a", digest.Digest("sha512:" + strings.Repeat("0b", 64)): "sha512:0b0b0b0b0b0b",
		"": "", "sha256:12": "sha256:12", "none": "none",
	} {
		if got := oci.Short(d); got != want {
			t.Errorf("Short(%q) = %q, want %q", d, got, want)
		}
	}
}
