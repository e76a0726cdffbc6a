package jobs

import "testing"

// A client's configuration may be anything.
func FuzzDiffIDs(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:short"]}}`))
	f.Add([]byte(`{"rootfs":[]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		for _, d := range diffIDs(config) {
			if err := d.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
