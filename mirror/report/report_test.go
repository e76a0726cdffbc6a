package report

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
)

// hostile are texts that strangers can choose, and that would do something if they were not
// escaped.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</style><script>alert(1)</script>`,
	`javascript:alert(1)`, `<!--`, `]]>`, `{{.}}`, `&lt;b&gt;`, "\u202egnp.exe",
}

func reportOf(text string) *pipeline.Report {
	return &pipeline.Report{
		ID: "ABC", Checks: text, Upstream: text, Repository: text, Tag: text, Digest: digest.FromString("image"), User: text, At: time.Unix(1e9, 0), Seconds: 1.25,
		Stages: []pipeline.StageRun{{Name: "secrets", Mode: pipeline.Enforce}, {Name: text, Mode: pipeline.Warn}},
		Findings: []pipeline.Finding{
			{Stage: "secrets", Rule: "aws-access-key", Mode: pipeline.Enforce, What: text, Fix: text, Fingerprint: "f1", Where: pipeline.Place{Platform: text, Layer: digest.FromString("layer"), Number: 2, Of: 5, Path: text}},
			{Stage: "names", Rule: text, Mode: pipeline.Warn, What: "a warning"},
			{Stage: "shape", Rule: "layers", Mode: pipeline.Enforce, What: "too many", Waived: text},
		},
		Unknowns: []pipeline.Unknown{{Stage: "clamd", Why: text}, {Stage: "webhook", Why: text, OnError: pipeline.Allow}},
		More:     3,
	}
}

// elements returns the names of the elements of a page, with those of their attributes.
func elements(t *testing.T, page []byte) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	d := xml.NewDecoder(strings.NewReader(string(page)))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, page)
		}
		if e, ok := token.(xml.StartElement); ok {
			names[e.Name.Local] = true
			for _, a := range e.Attr {
				names[e.Name.Local+" "+a.Name.Local] = true
			}
		}
	}
}

// TestHostile: whatever a report has as its texts, the page has the same elements and attributes,
// and shows the texts.
func TestHostile(t *testing.T) {
	plain, err := Page(reportOf("plain"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(elements(t, plain))
	for name := range elements(t, plain) {
		element, attribute, _ := strings.Cut(name, " ")
		if element == "script" || strings.HasPrefix(attribute, "on") || attribute == "style" || attribute == "href" || attribute == "src" {
			t.Errorf("the page has %s", name)
		}
	}
	for _, text := range hostile {
		got, err := Page(reportOf(text))
		if err != nil {
			t.Fatal(err)
		}
		if have := fmt.Sprint(elements(t, got)); have != want {
			t.Errorf("%q: the page has %s, want %s", text, have, want)
		}
		if strings.Contains(string(got), "<script") || strings.Contains(string(got), "<img") {
			t.Errorf("%q is not escaped", text)
		}
	}
}

// TestContent: the page says what failed, where, what to do, and which document explains it.
func TestContent(t *testing.T) {
	page, err := Page(reportOf("some text"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"The push was rejected", "some text:some text", "There is 1 thing to fix", "secrets/aws-access-key", "layer 2 of 5", digest.FromString("layer").String(),
		"What to do: some text", "docs/pipeline.md#secrets", "Why it was rejected", "Checks without a result", "no result: some text", "Warnings", "a warning", "Waived",
		"3 more are not in this report", digest.FromString("image").String(), "2001-09-09 01:46:40 UTC", "f1",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for outcome, r := range map[string]*pipeline.Report{
		"The push passed":              {Repository: "team/app", Pass: true},
		"The push could not be judged": {Repository: "team/app", Unknowns: []pipeline.Unknown{{Stage: "clamd", Why: "it is down"}}},
	} {
		page, err := Page(r)
		if err != nil || !strings.Contains(string(page), outcome) {
			t.Errorf("%s: %v\n%s", outcome, err, page)
		}
	}
}

// TestStyle: the policy allows exactly the style of the page.
func TestStyle(t *testing.T) {
	page, err := Page(reportOf("x"))
	if err != nil {
		t.Fatal(err)
	}
	styles := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllSubmatch(page, -1)
	if len(styles) != 1 {
		t.Fatalf("%d styles", len(styles))
	}
	sum := sha256.Sum256(styles[0][1])
	if policy := Headers()["Content-Security-Policy"]; !strings.Contains(policy, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';") || strings.Contains(policy, "unsafe") {
		t.Errorf("%s", policy)
	}
}

// TestWanted: browsers get the page, and programs JSON.
func TestWanted(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                 false,
		"*/*":              false,
		"application/json": false,
		"text/*":           false,
		"text/html":        true,
		"TEXT/HTML":        true,
		";;;":              false,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8": true,
		"application/json, text/html;q=0.9":                                                     false,
		"application/json, text/html":                                                           false,
		"text/html;q=0":                                                                         false,
		"text/html;q=x":                                                                         false,
		"application/vnd.oci.image.manifest.v1+json":                                            false,
	} {
		if got := Wanted([]string{accept}); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
	if !Wanted([]string{"image/png", "text/html"}) {
		t.Error("the second line is not read")
	}
}
