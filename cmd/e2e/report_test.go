package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// TestReportInBrowser opens the report of a rejected push in Chromium, at the address that the
// client of the push was told. Its texts come from the image.
func TestReportInBrowser(t *testing.T) {
	const hostile = `"'><script>window.ran = 1</script><img src=x onerror="window.ran = 2"></style><svg onload="window.ran = 3">`
	axe := string(read(t, needAxe(t)))
	ecr := ecrtest.Start(t, ecrtest.Options{})
	ecr.CreateRepository("team/app")
	ip, dir := nextIP(), shortDir(t)
	file := filepath.Join(dir, "dray.yaml")
	write(t, file, fmt.Appendf(nil, `
listeners: [{address: "%[1]s:5000", external_url: "http://%[1]s:5000", role: registry}]
upstreams: [{name: ecr, url: "http://%[2]s", address: %[3]q, kind: ecr, push: true, keep_alive: 0s, checks: [gate]}]
checks:
- name: gate
  secrets: {mode: enforce}
  runtime: {mode: warn, non_root: true}
  metadata: {mode: enforce, required: [{key: team, in: label, pattern: core|web}]}
cache: {directory: "%[4]s/cache", min_free_bytes: 0}
admin: {address: "%[1]s:6060"}
`, ip, ecr.RegistryHost, ecr.RegistryAddr, dir))
	p := start(t, "dray", environment("HOME="+dir, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=example", "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR="+ecr.APIURL), built.dray, "serve", "--config", file)
	p.awaitHTTP("http://" + ip + ":6060/healthz")

	tag, err := name.NewTag(ip+":5000/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	bad := image(t, types.OCIManifestSchema1, v1.Config{Labels: map[string]string{"team": hostile}}, files(t, "srv/"+hostile+".ini", "access="+plantedKey+"\n"))
	err = remote.Write(tag, bad, remote.WithContext(t.Context()))
	if err == nil {
		t.Fatal("the push succeeded")
	}
	address := regexp.MustCompile(`http://\S+/dray/reports/\w+`).FindString(err.Error())
	if address == "" {
		t.Fatalf("no address of a report: %v", err)
	}

	b := newTab(t, newBrowser(t), "")
	for _, l := range looks {
		b.as(l)
		b.open(address)
		if title := evaluate[string](b, "document.title"); !strings.Contains(title, "The push was rejected: team/app:v1") {
			t.Errorf("the title is %q", title)
		}
		b.accessible(l, "report", axe)
	}
	if ran := evaluate[string](b, `String(window.ran)`); ran != "undefined" {
		t.Errorf("script %s has run", ran)
	}
	if n := evaluate[int](b, `document.querySelectorAll("script, img, svg, iframe, object, a, form, [onload], [onerror]").length`); n != 0 {
		t.Errorf("%d elements could run, load or send something", n)
	}
	shown := evaluate[string](b, `document.body.innerText`)
	for _, want := range []string{"secrets/aws-access-key", "metadata/required", "runtime/user", "There are 2 things to fix", "onerror="} {
		if !strings.Contains(shown, want) {
			t.Errorf("the report does not say %q:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, plantedKey) {
		t.Error("the report has the secret")
	}
	for _, path := range []string{"/", "/ui/live", "/ui/images", "/metrics", "/api/v1/live"} {
		if resp, err := http.Get("http://" + ip + ":5000" + path); err != nil || resp.Body.Close() != nil || resp.StatusCode == http.StatusOK {
			t.Errorf("%s is on the listener of the registry: %v", path, err)
		}
	}

	// Without JavaScript nothing is missing, because the page has none. The picture is that of a push
	// such as people make.
	if *screenshots != "" {
		usual := image(t, types.OCIManifestSchema1, v1.Config{Labels: map[string]string{"team": "nobody"}}, files(t, "srv/app/settings.ini", "region=eu\naccess="+plantedKey+"\n"))
		err := remote.Write(tag, usual, remote.WithContext(t.Context()))
		if err == nil {
			t.Fatal("the push succeeded")
		}
		b.as(look{"light", 1280, 1000, "light"})
		b.do(chromedp.Navigate(regexp.MustCompile(`http://\S+/dray/reports/\w+`).FindString(err.Error())))
		b.picture("report")
	}
}
