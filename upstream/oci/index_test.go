package oci_test

import (
	"slices"
	"testing"

	"dray/upstream/oci"
)

func TestEditIndex(t *testing.T) {
	const index = `{"schemaVersion":2,"manifests":[{"digest":"sha256:a","size":1,"odd":[1]},{"digest":"sha256:b","size":2}],"else":{"x":1}}`
	got, err := oci.EditIndex([]byte(index), func(all []oci.IndexEntry) []oci.IndexEntry {
		all = slices.DeleteFunc(all, func(e oci.IndexEntry) bool { return e.Digest == "sha256:b" })
		return append(all, oci.IndexEntry{Descriptor: oci.Descriptor{MediaType: "m", Digest: "sha256:c", Size: 3}})
	})
	const want = `{"else":{"x":1},"manifests":[{"digest":"sha256:a","size":1,"odd":[1]},{"mediaType":"m","digest":"sha256:c","size":3}],"schemaVersion":2}`
	if string(got) != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	none, err := oci.EditIndex([]byte(index), func([]oci.IndexEntry) []oci.IndexEntry { return nil })
	if string(none) != `{"else":{"x":1},"manifests":[],"schemaVersion":2}` || err != nil {
		t.Errorf("%s, %v", none, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"manifests":{}}`, `{"manifests":[1]}`} {
		if _, err := oci.EditIndex([]byte(bad), func(all []oci.IndexEntry) []oci.IndexEntry { return all }); err == nil {
			t.Errorf("%q was edited", bad)
		}
	}
}
