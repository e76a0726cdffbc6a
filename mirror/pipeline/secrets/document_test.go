package secrets

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"dray/mirror/pipeline"
)

// Credentials outside of layers are found wherever they are, and shown nowhere.
func TestSecretsInDocuments(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	token := "ghp_" + "q7Rk2Vw9Xz4Lm8Np3Ts6Yb1Cd5Fg0HjWaEoU"
	key := "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("MIIEowIBAAKCAQEAq7Rk2Vw9Xz4Lm8Np3Ts6Yb1Cd5Fg0HjWaEoUvIiPpQqSsDd\n", 8) + "-----END RSA PRIVATE KEY-----\n"
	text := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	escaped := strings.ReplaceAll(text(key), "-", `\u002d`)
	for name, tc := range map[string]struct {
		config, manifest, title string
		want                    string
	}{
		"a variable":           {config: text(map[string]any{"config": map[string]any{"Env": []string{"PATH=/bin", "GH=" + token}}}), want: "in the configuration (config.Env[1])"},
		"a label":              {config: text(map[string]any{"config": map[string]any{"Labels": map[string]string{"k": key}}}), want: "in the configuration (config.Labels.k)"},
		"a label with escapes": {config: `{"config":{"Labels":{"k":` + escaped + `}}}`, want: "in the configuration (config.Labels.k)"},
		"the history":          {config: text(map[string]any{"history": []any{map[string]string{"created_by": "RUN |1 T=" + token + " /bin/sh -c x"}}}), want: "in the configuration (history[0].created_by)"},
		"a command":            {config: text(map[string]any{"config": map[string]any{"Cmd": []string{"x", "--token", token}}}), want: "in the configuration (config.Cmd[2])"},
		"a name of a member":   {config: text(map[string]any{token: "x"}), want: "in the configuration (…)"},
		"a volume":             {config: text(map[string]any{"config": map[string]any{"Volumes": map[string]any{"/data?" + token: map[string]any{}}}}), want: "in the configuration (config.Volumes.…)"},
		"a port":               {config: text(map[string]any{"config": map[string]any{"ExposedPorts": map[string]any{token: nil}}}), want: "in the configuration (config.ExposedPorts.…)"},
		"a name of a list":     {manifest: text(map[string]any{token: []any{1}}), want: "in the manifest (…)"},
		"a name of a number":   {manifest: text(map[string]any{"annotations": map[string]any{token: 1}}), want: "in the manifest (annotations.…)"},
		"the second of two":    {config: `{"author":"` + token + `","author":"x"}`, want: "in the configuration (author)"},
		"one without JSON":     {config: "token: " + token, want: "in the configuration, fingerprint"},
		"an annotation":        {manifest: text(map[string]any{"annotations": map[string]string{"k": token}}), want: "in the manifest (annotations.k)"},
		"an annotation below":  {manifest: text(map[string]any{"layers": []any{map[string]any{"annotations": map[string]string{"k k": token}}}}), want: "in the manifest (layers[0].annotations.…)"},
		"a name and a value":   {config: `{"config":{"Labels":{"aws_secret_access_key":"q7Rk2Vw9Xz4Lm8Np3Ts6Yb1Cd5Fg0HjWaEoUvIiP"}}}`, want: "in the configuration (config.Labels.aws_secret_access_key)"},
		"a file":               {title: "id_rsa", want: "the image contains an SSH private key"},
		"nothing":              {config: `{"config":{"Env":["PATH=/bin"]},"history":[{"created_by":"RUN x"}]}`, manifest: `{"annotations":{"org.opencontainers.image.title":"x"}}`, title: "app.txt"},
	} {
		m := &pipeline.Manifest{Raw: []byte(tc.manifest), Config: &pipeline.Config{Raw: []byte(tc.config)}, Layers: []*pipeline.LayerView{{Annotations: map[string]string{"org.opencontainers.image.title": tc.title}}}}
		found, err := s.CheckImage(t.Context(), &pipeline.Image{Manifests: []*pipeline.Manifest{m}})
		if err != nil || tc.want == "" && len(found) > 0 || tc.want != "" && (len(found) != 1 || !strings.Contains(found[0].What, tc.want)) {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		if shown := fmt.Sprint(found); strings.Contains(shown, "q7Rk2V") {
			t.Errorf("%s: the secret is shown: %s", name, shown)
		}
	}
}

// A key that is a layer by itself is found.
func TestSecretsInWholeBlobs(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Open(t.Context(), pipeline.Layer{})
	if err != nil {
		t.Fatal(err)
	}
	if wanted, err := v.Begin(&pipeline.Entry{Type: '0', Size: -1, Whole: true}); !wanted || err != nil {
		t.Fatalf("%v, %v", wanted, err)
	}
	_ = v.Data([]byte("token: ghp_" + "q7Rk2Vw9Xz4Lm8Np3Ts6"))
	_ = v.Data([]byte("Yb1Cd5Fg0HjWaEoU\n"))
	_ = v.End()
	if r, err := v.Close(true); err != nil || len(r.Findings) != 1 || r.Findings[0].Rule != "github-token" {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"a":["b",{"c":1,"a":null}],"d":true}`))
	f.Add([]byte(`[[[`))
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	token := "ghp_" + "q7Rk2Vw9Xz4Lm8Np3Ts6Yb1Cd5Fg0HjWaEoU"
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := len(s.search("it", pipeline.Place{}, raw))
		if !json.Valid(raw) {
			return
		}
		with := fmt.Appendf(nil, `{"x":%s,"y":[%q]}`, raw, token)
		if got := len(s.search("it", pipeline.Place{}, with)); got != before+1 {
			t.Errorf("%d findings, and %d with one more", before, got)
		}
	})
}

// A rule may be named twice among the disabled ones, and must exist.
func TestWithout(t *testing.T) {
	if _, err := New(Config{Without: []string{"path-netrc", "url-password", "path-netrc", "url-password"}}); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Without: []string{"path-netrc", "nothing"}}); err == nil || !strings.Contains(err.Error(), `no rule named "nothing"`) {
		t.Error(err)
	}
}
