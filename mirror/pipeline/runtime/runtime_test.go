package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// contents are the blobs of an image that a test makes.
type contents struct {
	p     *pipeline.Pipeline
	blobs map[digest.Digest][]byte
	trust bool
}

func (c *contents) Manifest(context.Context, oci.Descriptor) (*oci.Manifest, error) {
	return nil, oci.ErrManifestUnknown
}

func (c *contents) Open(_ context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c.blobs[d.Digest])), nil
}

func (c *contents) Scanned(ctx context.Context, d oci.Descriptor) (*pipeline.Scanned, error) {
	if c.trust {
		return nil, nil
	}
	r, _ := c.Open(ctx, d)
	return c.p.Scan(ctx, pipeline.Layer{Digest: d.Digest}, r, func() (digest.Digest, error) { return d.Digest, nil })
}

type file struct {
	path, text string
	mode       int64
	kind       byte
}

func layer(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if f.kind != 0 {
			h.Typeflag, h.Linkname = f.kind, "target"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, f.text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// judge returns the findings as rule@place, and unknowns as "?".
func judge(t *testing.T, c Config, trust bool, config string, layers ...[]byte) string {
	t.Helper()
	stage, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.New(pipeline.Options{Name: "test", Steps: []pipeline.Step{{Stage: stage}}})
	if err != nil {
		t.Fatal(err)
	}
	from := &contents{p: p, blobs: map[digest.Digest][]byte{}, trust: trust}
	blob := func(mediaType string, p []byte) string {
		d := digest.FromBytes(p)
		from.blobs[d] = p
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(p))
	}
	var descs []string
	for _, l := range layers {
		descs = append(descs, blob("application/vnd.oci.image.layer.v1.tar", l))
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, oci.MediaTypeOCIManifest,
		blob("application/vnd.oci.image.config.v1+json", []byte(`{"os":"linux","architecture":"amd64",`+config+`}`)), strings.Join(descs, ","))
	man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Judge(t.Context(), pipeline.Subject{Manifest: man}, from)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.TrimSuffix(f.Rule+"@"+f.Where.String(), "@"))
	}
	for range r.Unknowns {
		out = append(out, "?")
	}
	return strings.Join(out, " ")
}

func TestWhoItRunsAs(t *testing.T) {
	etc := func(text string) []byte { return layer(t, file{path: "./etc/passwd", text: text, mode: 0o644}) }
	users := etc("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:\ntoor:x:0:0::/:\n1001:x:0:0::/:\n")
	for name, tc := range map[string]struct {
		user   string
		layers [][]byte
		want   string
	}{
		"nobody":                  {"", nil, "user"},
		"root":                    {"root", nil, "user"},
		"zero":                    {"0", nil, "user"},
		"zero with a group":       {"0:1000", nil, "user"},
		"zero in other words":     {"00", nil, "user"},
		"a number":                {"1000", nil, ""},
		"a number and a group":    {"1000:0", nil, ""},
		"a negative number":       {"-1", nil, "user"},
		"a name":                  {"app", [][]byte{users}, ""},
		"another name for root":   {"toor:app", [][]byte{users}, "user"},
		"a number that is a name": {"1001", [][]byte{users}, "user"},
		"an unknown name":         {"app2", [][]byte{users}, "user"},
		"no passwd":               {"app", [][]byte{layer(t, file{path: "x"})}, "user"},
		"a later layer says else": {"app", [][]byte{users, etc("app:x:0:0::/:\n")}, "user"},
		"an earlier one said":     {"app", [][]byte{etc("app:x:0:0::/:\n"), users}, ""},
		"deleted":                 {"app", [][]byte{users, layer(t, file{path: "etc/.wh.passwd"})}, "user"},
		"deleted with all of etc": {"app", [][]byte{users, layer(t, file{path: ".wh.etc"})}, "user"},
		"hidden":                  {"app", [][]byte{users, layer(t, file{path: "etc/.wh..wh..opq"})}, "user"},
		"a link":                  {"app", [][]byte{users, layer(t, file{path: "etc/passwd", kind: tar.TypeSymlink})}, "user"},
		"etc is a link":           {"app", [][]byte{users, layer(t, file{path: "etc", kind: tar.TypeSymlink})}, "user"},
		"too long to read":        {"app", [][]byte{etc("app:x:1000:1000::/:\n" + strings.Repeat("#", maxPasswd))}, "user"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge(t, Config{NonRoot: true}, false, `"config":{"User":"`+tc.user+`"}`, tc.layers...); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if got := judge(t, Config{NonRoot: true}, true, `"config":{"User":"app"}`, users); got != "?" {
		t.Errorf("layers that nobody has looked at: %q", got)
	}
}

func TestSetUID(t *testing.T) {
	su := layer(t, file{path: "bin/su", mode: 0o4755}, file{path: "bin/wall", mode: 0o2755}, file{path: "srv", kind: tar.TypeDir, mode: 0o2755}, file{path: "data", mode: 0o4644})
	for name, tc := range map[string]struct {
		c      Config
		layers [][]byte
		want   string
	}{
		"found":          {Config{SetUID: true}, [][]byte{layer(t), su}, "setuid@layer 2 of 2, /bin/su setuid@layer 2 of 2, /bin/wall"},
		"allowed":        {Config{SetUID: true, SetUIDAllowed: []string{"bin/s*", "*/wall"}}, [][]byte{su}, ""},
		"cleared":        {Config{SetUID: true}, [][]byte{su, layer(t, file{path: "bin/su", mode: 0o755})}, "setuid@layer 1 of 2, /bin/wall"},
		"deleted":        {Config{SetUID: true}, [][]byte{su, layer(t, file{path: "bin/.wh.su"}, file{path: "bin/.wh.wall"})}, ""},
		"directory gone": {Config{SetUID: true}, [][]byte{su, layer(t, file{path: ".wh.bin"})}, ""},
		"off":            {Config{}, [][]byte{su}, ""},
	} {
		if got := judge(t, tc.c, false, `"config":{}`, tc.layers...); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestConfiguration(t *testing.T) {
	for config, want := range map[string]string{
		`"config":{"Env":["PATH=/bin","DB_PASSWORD=x","API_KEY=y","SECRET_FILE=/run/s","TOKEN="]}`: "environment environment",
		`"config":{"Env":["HARMLESS_TOKEN=x","COMPASS=n","PASSENGER_VERSION=1","MONKEY=1"]}`:       "",
		`"config":{"ExposedPorts":{"8080/tcp":{},"9000-9010/udp":{}}}`:                             "",
		`"config":{"ExposedPorts":{"22/tcp":{},"53/udp":{}}}`:                                      "port port",
		`"history":[{"created_by":"ADD https://example.com/x / # buildkit"}]`:                      "add-url",
		`"history":[{"created_by":"/bin/sh -c #(nop) ADD --chown=1:1 http://example.com/x in /"}]`: "add-url",
		`"history":[{"created_by":"ADD file:0123 in / "},{"created_by":"RUN echo https://a"}]`:     "",
	} {
		c := Config{Environment: true, Harmless: []string{"HARMLESS_*"}, Ports: []string{"8080", "9000-9999/udp"}, AddFromURL: true}
		if got := judge(t, c, true, config); got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func TestBadPorts(t *testing.T) {
	if _, err := New(Config{Ports: []string{"80", "x", "2-1", "1/icmp", "70000"}}); err == nil || strings.Count(err.Error(), "not a port") != 4 {
		t.Errorf("%v", err)
	}
}
