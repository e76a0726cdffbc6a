package jobs

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// listing is a configuration of an image with n layers.
func listing(n int) []byte {
	layers := slices.Repeat([]string{fmt.Sprintf("%q", digest.FromString("layer"))}, n)
	return fmt.Appendf(nil, `{"rootfs":{"diff_ids":[%s]}}`, strings.Join(layers, ","))
}

// A configuration is read as a whole, or not at all.
func TestDiffIDs(t *testing.T) {
	for name, c := range map[string]struct {
		config []byte
		want   int
	}{
		"as many layers as are recorded": {listing(maxImageLayers), maxImageLayers},
		"one more":                       {listing(maxImageLayers + 1), 0},
		"an invalid one":                 {[]byte(strings.Replace(string(listing(2)), "sha256", "sha25", 1)), 0},
		"null":                           {[]byte(`{"rootfs":{"diff_ids":null}}`), 0},
		"no list":                        {[]byte(`{"rootfs":{"diff_ids":"sha256"}}`), 0},
		"a list, and then null":          {[]byte(strings.Replace(string(listing(2)), "]", `],"diff_ids":null`, 1)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := diffIDs(c.config); len(got) != c.want {
				t.Errorf("%d layers, want %d", len(got), c.want)
			}
		})
	}
}

// To read a configuration takes no more memory than its own bytes.
func TestDiffIDsMemory(t *testing.T) {
	config := []byte(`{"rootfs":{"diff_ids":[` + strings.Repeat(`"",`, 1<<20) + `""]}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	diffIDs(config)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > uint64(len(config)) {
		t.Errorf("a configuration of %d bytes cost %d more", len(config), allocated)
	}
}

// A client's configuration may be anything.
func FuzzDiffIDs(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:short"]}}`))
	f.Add([]byte(`{"rootfs":[]}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":null}}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":{}}}`))
	f.Add(listing(maxImageLayers + 1))
	f.Fuzz(func(t *testing.T, config []byte) {
		layers := diffIDs(config)
		if len(layers) > maxImageLayers {
			t.Errorf("%d layers", len(layers))
		}
		for _, d := range layers {
			if err := d.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
