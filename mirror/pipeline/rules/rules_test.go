package rules

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dray/mirror/pipeline"
)

const views = `{
  "upstream": "ecr", "repository": "team/app", "tag": "1.2.3", "digest": "sha256:00", "user": "ci",
  "manifests": [
    {"kind": "index", "mediaType": "application/vnd.oci.image.index.v1+json", "annotations": {}, "layers": []},
    {"kind": "image", "platform": "linux/amd64", "annotations": {"team": "core"}, "totalSize": 4096, "layers": [{"size": 4000, "urls": null}],
     "config": {"config": {"User": "1000", "Labels": {"org.opencontainers.image.source": "https://git.example.com/team/app"}}}},
    {"kind": "image", "platform": "linux/arm64", "annotations": {}, "totalSize": 8192, "layers": [{"size": 8000, "urls": null}], "config": {"config": {}}}
  ]
}`

func image(t testing.TB) *pipeline.Image {
	t.Helper()
	var img pipeline.Image
	if err := json.Unmarshal([]byte(views), &img); err != nil {
		t.Fatal(err)
	}
	return &img
}

func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		rule Rule
		want []string // places of findings; "image" for none
		err  string
	}{
		"true":                  {rule: Rule{Expression: `image.repository.startsWith("team/")`}},
		"false":                 {rule: Rule{Expression: `image.tag.matches("^v[0-9]")`}, want: []string{"image"}},
		"of each":               {rule: Rule{Each: EachManifest, Expression: `manifest.totalSize <= 5000`}, want: []string{"linux/arm64"}},
		"of each, and of all":   {rule: Rule{Each: EachManifest, Expression: `manifest.annotations.?team.hasValue() || image.user == "root"`}, want: []string{"linux/arm64"}},
		"what may be missing":   {rule: Rule{Each: EachManifest, Expression: `manifest.?config.?config.?User.orValue("root") != "root"`}, want: []string{"linux/arm64"}},
		"over all":              {rule: Rule{Expression: `image.manifests.filter(m, m.kind == "image").all(m, m.platform in ["linux/amd64", "linux/arm64"])`}},
		"whole numbers":         {rule: Rule{Expression: `image.manifests[1].totalSize % 4096 == 0`}},
		"what is not there":     {rule: Rule{Expression: `image.nothing == 1`}, err: "no such key"},
		"not a bool, seen late": {rule: Rule{Expression: `image.tag`}, err: "not a bool"},
		"what never ends":       {rule: Rule{Expression: `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".split("").all(a, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".split("").all(b, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".split("").all(c, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".split("").all(d, a + b + c != d))))`}, err: "cost"},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Name = "it"
			s, err := New([]Rule{c.rule})
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.CheckImage(t.Context(), image(t))
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), `rule "it"`)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			var got []string
			for _, f := range found {
				place := f.Where.Platform
				if place == "" {
					place = "image"
				}
				got = append(got, place)
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("findings at %v, want %v", got, c.want)
			}
		})
	}
}

// A rule that cannot be evaluated does not hide the findings of others.
func TestRulesAreAskedEachForItself(t *testing.T) {
	s, err := New([]Rule{{Name: "broken", Expression: `image.nothing`}, {Name: "broken-too", Expression: `image.nothing`}, {Name: "owner", Expression: `false`, Message: "nobody owns it", Fix: "name an owner"}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.CheckImage(t.Context(), image(t))
	if len(found) != 1 || found[0].Rule != "owner" || found[0].What != "nobody owns it" || found[0].Fix != "name an owner" {
		t.Errorf("found %+v", found)
	}
	if err == nil || !strings.Contains(err.Error(), `"broken"`) || !strings.Contains(err.Error(), `"broken-too"`) {
		t.Errorf("error %v", err)
	}
}

// A rule about what only a scan finds out cannot be decided for a layer that was not scanned, and
// can be for one in which the scan found nothing. A fixture of an earlier version has zeros.
func TestRulesAboutUnseenLayers(t *testing.T) {
	const zeros = `"format": "", "uncompressed": 0, "entries": 0`
	for _, c := range []struct{ layer, err string }{{`"seen": false`, "no such key"}, {`"seen": false, ` + zeros, "no such key"}, {`"seen": true, "diffID": "sha256:00"`, ""}} {
		for _, expression := range []string{`l.format != "xz"`, `l.uncompressed < 1000`, `l.entries < 1000`, `l.diffID != "sha256:01"`} {
			s, err := New([]Rule{{Name: "it", Expression: `image.manifests[0].layers.all(l, l.size == 7 && !l.foreign && ` + expression + `)`}})
			if err != nil {
				t.Fatal(err)
			}
			var img pipeline.Image
			if err := json.Unmarshal([]byte(`{"manifests": [{"kind": "image", "layers": [{"size": 7, `+c.layer+`}]}]}`), &img); err != nil {
				t.Fatal(err)
			}
			found, err := s.CheckImage(t.Context(), &img)
			if len(found) > 0 || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s of a layer with %s: %v, %v", expression, c.layer, found, err)
			}
		}
	}
}

func TestRulesEndInTime(t *testing.T) {
	s, err := New([]Rule{{Name: "it", Expression: `lists.range(1000).all(a, lists.range(1000).all(b, a + b >= 0))`}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.CheckImage(ctx, image(t)); err == nil {
		t.Error("no error")
	}
}

func TestBadRules(t *testing.T) {
	for name, r := range map[string]Rule{
		"no name":          {Expression: `true`},
		"a bad name":       {Name: "Rule 1", Expression: `true`},
		"no expression":    {Name: "it"},
		"a syntax error":   {Name: "it", Expression: `image.`},
		"an unknown name":  {Name: "it", Expression: `picture.tag == "1"`},
		"not a bool":       {Name: "it", Expression: `"yes"`},
		"an unknown scope": {Name: "it", Expression: `true`, Each: "layer"},
		"a long one":       {Name: "it", Expression: `"` + strings.Repeat("x", maxExpression) + `" == ""`},
	} {
		if _, err := New([]Rule{r}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	_, err := New([]Rule{{Name: "one", Expression: `image.`}, {Name: "two", Expression: `1`}, {Name: "three", Expression: `true`}, {Name: "three", Expression: `true`}})
	for _, want := range []string{`"one"`, `"two"`, `"three"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
}

func FuzzRules(f *testing.F) {
	for _, e := range []string{`image.tag == "1"`, `image.manifests.all(m, has(m.config))`, `[1].exists(`, `manifest.?x[?0].orValue(1u)`} {
		f.Add(e)
	}
	img := image(f)
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := New([]Rule{{Name: "it", Expression: expression, Each: EachManifest}})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _ = s.CheckImage(ctx, img)
	})
}
