package ecrtest

import (
	_ "embed"
	"encoding/json"
)

// RefusedManifest is a manifest that ECR was seen to refuse with 405 UNSUPPORTED, "Invalid
// parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'".
type RefusedManifest struct {
	Name string `json:"name"`
	// Source is where somebody reported the refusal, and Seen is the date of the report.
	Source string `json:"source"`
	Seen   string `json:"seen"`
	// ContentType is the Content-Type of the PUT.
	ContentType string          `json:"contentType"`
	Manifest    json.RawMessage `json:"manifest"`
}

//go:embed refused.json
var refusedJSON []byte

// RefusedManifests returns one example of each kind of manifest whose refusal was reported, and the
// blobs that the examples name. If a repository has these blobs, a registry can refuse the examples
// only because of their form. An index among the examples names a blob as its child, and a registry
// may refuse it for that, too.
func RefusedManifests() (refused []RefusedManifest, blobs [][]byte) {
	if err := json.Unmarshal(refusedJSON, &refused); err != nil {
		panic("ecrtest: refused.json: " + err.Error()) // cannot happen, because a test reads the file
	}
	return refused, [][]byte{[]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), []byte("layer"), []byte("{}")}
}
