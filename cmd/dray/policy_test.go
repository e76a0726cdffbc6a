package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/pipeline"
)

// Whatever a fixture file or a document holds, it is judged or refused.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte("tests:\n- {name: a, image: b.json, findings: [x/y]}\n"), []byte(`{"manifests":[{"kind":"image","layers":[{"size":1}],"config":{"config":{"User":"0"}}}]}`))
	f.Add([]byte("tests: [{}]"), []byte(`{"manifests":[null]}`))
	c := config.Checks{Name: "all", Rules: config.RulesCheck{StageSettings: config.StageSettings{Mode: config.Enforce}, Rules: []config.CELRule{{Name: "it", Each: "manifest", Expression: `manifest.totalSize < 10 || image.tag == "x"`}}}}
	c.Attestations = config.AttestationsCheck{StageSettings: config.StageSettings{Mode: config.Enforce}, Provenance: true, Builders: []string{"*"}}
	p, err := pipelineOf(c, pipeline.Options{}, nil, watched.Watching(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tests, document []byte) {
		path := filepath.Join(t.TempDir(), "tests.yaml")
		if err := os.WriteFile(path, tests, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = readPolicy(path)
		var img pipeline.Image
		if json.Unmarshal(document, &img) == nil && img.Check() == nil {
			p.JudgeView(t.Context(), &img)
		}
	})
}
