package runtime

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path"
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
	target     string // of a link; "target" if empty
	caps       string
}

func layer(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if f.kind != 0 {
			h.Typeflag, h.Linkname = f.kind, cmp.Or(f.target, "target")
		}
		if f.caps != "" {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": f.caps}
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
	r := report(t, c, trust, config, layers...)
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.TrimSuffix(f.Rule+"@"+f.Where.String(), "@"))
	}
	for range r.Unknowns {
		out = append(out, "?")
	}
	return strings.Join(out, " ")
}

func report(t *testing.T, c Config, trust bool, config string, layers ...[]byte) *pipeline.Report {
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
	return r
}

// A finding says no more than the check knows: root and 0 count as root, whatever their entries in
// /etc/passwd are.
func TestWhyItRunsAsRoot(t *testing.T) {
	users := layer(t, file{path: "etc/passwd", text: "root:x:1000:0::/:\n0:x:1000:0::/:\ntoor:x:0:0::/:\n", mode: 0o644})
	for user, want := range map[string]string{
		"root": "the image runs as root: its user is root", "0:1000": "the image runs as root: its user is 0",
		"toor": "the image runs as root: the user toor has the ID 0", "": "the image runs as root, because it sets no user",
	} {
		if r := report(t, Config{NonRoot: true}, false, `"config":{"User":"`+user+`"}`, users); len(r.Findings) != 1 || r.Findings[0].What != want {
			t.Errorf("%q: %+v, want %q", user, r.Findings, want)
		}
	}
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
		"no ID":                   {"app", [][]byte{etc("app:x::0::\napp:x:1000:0::/:\n")}, "user"},
		"nothing but a name":      {"app", [][]byte{etc("app\napp:x:1000:0::/:\n")}, "user"},
		"an ID that is no number": {"app", [][]byte{etc("app:x:0x3e8:0::/:\n")}, "user"},
		"an ID of 33 bits":        {"app", [][]byte{etc("app:x:4294967296:0::/:\n")}, "user"},
		"a number of 33 bits":     {"4294967296", [][]byte{users}, "user"},
		"the first line counts":   {"app", [][]byte{etc("app:x:1000:0::/:\napp:x:0:0::/:\n")}, ""},
		"an empty file on top":    {"app", [][]byte{users, etc("")}, "user"},
		"all is hidden":           {"app", [][]byte{users, layer(t, file{path: ".wh..wh..opq"})}, "user"},
		"a number, and a link":    {"1000:1000", [][]byte{users, layer(t, file{path: "etc/passwd", kind: tar.TypeSymlink})}, ""},
		"a link to users":         {"app", [][]byte{layer(t, file{path: "etc/passwd", kind: tar.TypeSymlink, target: "../nix/store/x-passwd"}, file{path: "nix/store/x-passwd", text: "app:x:1000:0::/:"})}, ""},
		"a link to root":          {"app", [][]byte{users, layer(t, file{path: "etc", kind: tar.TypeSymlink, target: "/usr/etc"}, file{path: "usr/etc/passwd", text: "app:x:0:0::/:"})}, "user"},
		"a link to what is else":  {"1000", [][]byte{layer(t, file{path: "etc/passwd", kind: tar.TypeSymlink, target: "/srv/users"}, file{path: "srv/users", text: "1000:x:0:0::/:"})}, "user"},
		"a hard link":             {"app", [][]byte{layer(t, file{path: "srv/passwd", text: "app:x:0:0::/:"}, file{path: "etc/passwd", kind: tar.TypeLink, target: "srv/passwd"})}, "user"},
		"a hard link elsewhere":   {"app", [][]byte{users, layer(t, file{path: "etc/passwd", kind: tar.TypeLink, target: "srv/users"})}, "user"},
		"through a link":          {"app", [][]byte{layer(t, file{path: "etc/passwd", text: "app:x:1000:0::/:"}, file{path: "e", kind: tar.TypeSymlink, target: "etc"}, file{path: "e/passwd", text: "app:x:0:0::/:"})}, "user"},
		"through a lower link":    {"app", [][]byte{users, layer(t, file{path: "e", kind: tar.TypeSymlink, target: "/"}), layer(t, file{path: "e/etc/passwd", text: "app:x:0:0::/:"})}, "user"},
		"no link any more":        {"app", [][]byte{users, layer(t, file{path: "e", kind: tar.TypeSymlink, target: "/etc"}), layer(t, file{path: "e", kind: tar.TypeDir, mode: 0o755}, file{path: "e/passwd", text: "app:x:0:0::/:"})}, ""},
		"another file below it":   {"app", [][]byte{users, layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "usr/bin"}), layer(t, file{path: "bin/x", text: "y"})}, ""},
		"written twice":           {"app", [][]byte{layer(t, file{path: "etc/passwd", text: "app:x:1000:0::/:"}, file{path: "etc/passwd", text: "app:x:0:0::/:"})}, "user"},
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
	one := layer(t, file{path: "bin/su", mode: 0o4755})
	many := make([]file, 4000)
	for i := range many {
		many[i] = file{path: fmt.Sprintf("app/node_modules/package-%d/index.js", i), mode: 0o644}
	}
	for name, tc := range map[string]struct {
		c      Config
		layers [][]byte
		want   string
	}{
		"found":                               {Config{SetUID: true}, [][]byte{layer(t), su}, "setuid@layer 2 of 2, /bin/su setuid@layer 2 of 2, /bin/wall"},
		"allowed":                             {Config{SetUID: true, SetUIDAllowed: []string{"bin/s*", "*/wall"}}, [][]byte{su}, ""},
		"cleared":                             {Config{SetUID: true}, [][]byte{su, layer(t, file{path: "bin/su", mode: 0o755})}, "setuid@layer 1 of 2, /bin/wall"},
		"deleted":                             {Config{SetUID: true}, [][]byte{su, layer(t, file{path: "bin/.wh.su"}, file{path: "bin/.wh.wall"})}, ""},
		"directory gone":                      {Config{SetUID: true}, [][]byte{su, layer(t, file{path: ".wh.bin"})}, ""},
		"off":                                 {Config{}, [][]byte{su}, ""},
		"not executable":                      {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin/su", mode: 0o644})}, ""},
		"no mode":                             {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin/su"})}, ""},
		"a link in its place":                 {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin/su", kind: tar.TypeSymlink, target: "/bin/true"})}, ""},
		"a directory in its place":            {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin/su", kind: tar.TypeDir, mode: 0o755})}, ""},
		"its directory is a link":             {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "usr/bin"})}, ""},
		"its directory is a file":             {Config{SetUID: true}, [][]byte{one, layer(t, file{path: "bin", text: "x"})}, ""},
		"all is hidden":                       {Config{SetUID: true}, [][]byte{one, layer(t, file{path: ".wh..wh..opq"})}, ""},
		"hidden in its own layer":             {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/su", mode: 0o4755}, file{path: "bin/.wh..wh..opq"})}, "setuid@layer 1 of 1, /bin/su"},
		"replaced in its layer":               {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/su", mode: 0o4755}, file{path: "bin/su", mode: 0o755})}, ""},
		"replaces in its layer":               {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/su", mode: 0o755}, file{path: "bin/su", mode: 0o4755})}, "setuid@layer 1 of 1, /bin/su"},
		"a hard link":                         {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/x", mode: 0o755}, file{path: "bin/y", kind: tar.TypeLink, target: "bin/x", mode: 0o4755}), layer(t, file{path: "bin/.wh.y"})}, "setuid@layer 1 of 2, /bin/x"},
		"a hard link to a lower layer":        {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/x", mode: 0o755}), layer(t, file{path: "bin/y", kind: tar.TypeLink, target: "/bin/x", mode: 0o4755}), layer(t, file{path: "bin/.wh.y"})}, "setuid@layer 2 of 3, /bin/x"},
		"below a link, and the link goes":     {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "usr/bin"}), layer(t, file{path: "bin/su", mode: 0o4755}), layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "else"})}, "setuid@layer 2 of 3, /bin/su"},
		"cleared through a lower link":        {Config{SetUID: true}, [][]byte{layer(t, file{path: "usr/bin/su", mode: 0o4755}), layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "usr/bin"}), layer(t, file{path: "bin/su", mode: 0o755})}, "setuid@layer 1 of 3, /usr/bin/su"},
		"cleared through a link of the layer": {Config{SetUID: true}, [][]byte{layer(t, file{path: "usr/bin/su", mode: 0o4755}), layer(t, file{path: "bin", kind: tar.TypeSymlink, target: "usr/bin"}, file{path: "bin/su", mode: 0o755})}, ""},
		"many files on top":                   {Config{SetUID: true}, [][]byte{one, layer(t, append(many, file{path: "bin/su", mode: 0o755})...)}, ""},
		"capabilities":                        {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/ping", mode: 0o755, caps: "\x01\x00\x00\x02\x00\x20\x00\x00"})}, "setuid@layer 1 of 1, /bin/ping"},
		"capabilities that are gone":          {Config{SetUID: true}, [][]byte{layer(t, file{path: "bin/ping", mode: 0o755, caps: "\x01"}), layer(t, file{path: "bin/ping", mode: 0o755})}, ""},
	} {
		if got := judge(t, tc.c, false, `"config":{}`, tc.layers...); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// The users of Windows are in no file, and its administrator has a name instead of a number.
func TestUsersOfWindows(t *testing.T) {
	files := layer(t, file{path: "Files/x", text: "x"})
	linux := layer(t, file{path: "etc/passwd", text: "ContainerUser:x:0:0::/:\n"})
	for _, tc := range []struct {
		user, want string
		layer      []byte
	}{
		{"ContainerUser", "", files}, {"app", "", files}, {`DOMAIN\\app`, "", files},
		{"", "user", files}, {"ContainerAdministrator", "user", files}, {"containeradministrator", "user", files}, {`User Manager\\ContainerAdministrator`, "user", files},
		{"ContainerUser", "user", linux}, {"0", "user", files}, // Linux may run it
	} {
		if got := judge(t, Config{NonRoot: true}, false, `"os":"windows","config":{"User":"`+tc.user+`"}`, tc.layer); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.user, got, tc.want)
		}
	}
}

// Of a layer with more than can be remembered, what is dropped makes no image pass that should not.
func TestLayersWithTooMuch(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	unlike := func() string { return fmt.Sprintf("%016x%016x", noise.Uint64(), noise.Uint64()) }
	var links, special, plain []file
	for range 4000 {
		links = append(links, file{path: "l/" + unlike(), kind: tar.TypeSymlink, target: unlike()})
		special = append(special, file{path: "s/" + unlike(), mode: 0o4755})
		plain = append(plain, file{path: "p/" + unlike(), mode: 0o755})
	}
	var named []file
	for range 4000 {
		named = append(named, file{path: "n/" + unlike() + "/passwd", mode: 0o644})
	}
	users := layer(t, file{path: "etc/passwd", text: "app:x:1000:0::/:\n"})
	su := layer(t, file{path: "bin/su", mode: 0o4755})
	for name, tc := range map[string]struct {
		c      Config
		layers [][]byte
		want   string
	}{
		"special files":                  {Config{SetUID: true, SetUIDAllowed: []string{"s/*"}}, [][]byte{layer(t, special...)}, "setuid"},
		"files named passwd":             {Config{SetUID: true}, [][]byte{layer(t, named...)}, ""},
		"them, and users":                {Config{NonRoot: true}, [][]byte{users, layer(t, named...)}, "user"},
		"them, and special files":        {Config{SetUID: true}, [][]byte{layer(t, append(named, file{path: "bin/su", mode: 0o4755})...)}, "setuid@layer 1 of 1, /bin/su"},
		"plain files":                    {Config{SetUID: true}, [][]byte{su, layer(t, plain...)}, "setuid@layer 1 of 2, /bin/su"},
		"links":                          {Config{NonRoot: true}, [][]byte{users, layer(t, links...)}, ""},
		"links, and a file through one":  {Config{NonRoot: true}, [][]byte{users, layer(t, links...), layer(t, file{path: "l/x/passwd", text: "x"})}, "user"},
		"links, and a directory instead": {Config{NonRoot: true}, [][]byte{users, layer(t, links...), layer(t, file{path: "l", kind: tar.TypeDir}, file{path: "l/x", kind: tar.TypeDir}, file{path: "l/x/passwd", text: "x"})}, ""},
	} {
		if got := judge(t, tc.c, false, `"config":{"User":"app"}`, tc.layers...); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func FuzzPasswd(f *testing.F) {
	f.Add([]byte("root:x:0:0::/:\napp:x:1000\n\n:\napp\x00:x:-1:\n"), "app")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		users := parsePasswd(text)
		if id, listed := userID(users, name); id < 0 || id > math.MaxInt32 || !listed && id != 0 {
			t.Errorf("%q is %d in %q", name, id, users)
		}
		log, err := compress([]record{{kind: kindUsers, path: passwdPath, text: users}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (facts{Log: log}).records(); err != nil || len(got) != 1 || got[0].text != users {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// FuzzFacts applies entries, one in a line as a type flag and a path, and a target behind a space.
func FuzzFacts(f *testing.F) {
	f.Add("5etc\n2e etc\n0e/passwd\n1x e/passwd\n0.wh.e\n0.wh..wh..opq\n2l l\n0l/x")
	f.Fuzz(func(t *testing.T, text string) {
		v, _ := (&Stage{}).Open(t.Context(), pipeline.Layer{})
		for line := range strings.Lines(text) {
			p, target, _ := strings.Cut(strings.TrimSuffix(line[1:], "\n"), " ")
			p = strings.TrimPrefix(path.Clean("/"+p), "/")
			if strings.Contains(line, "\x00") {
				continue
			}
			if wanted, err := v.Begin(&pipeline.Entry{Path: p, Type: line[0], Mode: 0o4755, Target: target}); wanted && err == nil {
				_ = v.End()
			}
		}
		r, err := v.Close(true)
		if err != nil || len(r.Facts) > pipeline.MaxFacts {
			t.Fatalf("%d bytes, %v", len(r.Facts), err)
		}
		var got facts
		if err := json.Unmarshal(r.Facts, &got); err != nil {
			t.Fatal(err)
		}
		fs := newRootFS()
		for i := range 2 {
			if err := fs.apply(got, i); err != nil {
				t.Fatal(err)
			}
		}
		fs.passwd()
		fs.tree.specials()
	})
}

func TestConfiguration(t *testing.T) {
	for config, want := range map[string]string{
		`"config":{"Env":["PATH=/bin","DB_PASSWORD=x","API_KEY=y","SECRET_FILE=/run/s","TOKEN="]}`: "environment environment",
		`"config":{"Env":["HARMLESS_TOKEN=x","COMPASS=n","PASSENGER_VERSION=1","MONKEY=1"]}`:       "",
		`"config":{"ExposedPorts":{"8080/tcp":{},"9000-9010/udp":{}}}`:                             "",
		`"config":{"ExposedPorts":{"22/tcp":{},"53/udp":{}}}`:                                      "port port",
		`"history":[{"created_by":"ADD https://example.com/x / # buildkit"}]`:                      "add-url",
		`"history":[{"created_by":"/bin/sh -c #(nop) ADD --chown=1:1 http://example.com/x in /"}]`: "add-url",
		`"history":[{"created_by":"ADD --link a b http://example.com/x /to/ # buildkit"}]`:         "add-url",
		`"history":[{"created_by":"ADD [\"a b\",\"git@example.com:x/y.git\",\"/to/\"]"}]`:          "add-url",
		`"history":[{"created_by":"ADD a /http:// # buildkit"}]`:                                   "",
		`"history":[{"created_by":"RUN /bin/sh -c echo ADD a; curl https://example.com/x"}]`:       "",
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
