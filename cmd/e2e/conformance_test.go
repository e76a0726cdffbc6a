package e2e

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/upstream/ecrtest"
)

// TestConformance runs the conformance suite of the OCI distribution specification against dray, with a registry behind it that can do all the
// specification wants, and with ECR, which has no use for a tag as the place where the next page of tags begins. Nothing is deleted through dray,
// and neither double knows sha512.
func TestConformance(t *testing.T) {
	suite := need(t, "conformance")
	version := strings.TrimPrefix(filepath.Base(suite), "conformance-")
	for _, upstream := range []struct {
		name  string
		more  []string
		least int // tests that have to pass
	}{
		{"docker.io", nil, 400},
		{"ecr", []string{"OCI_API_TAGS_LIST=false"}, 350},
	} {
		s := newStack(t, stackOptions{
			switches: func(w *ecrtest.Switches) { w.SubjectHeader = true },
			configure: func(config map[string]any) {
				for _, u := range config["upstreams"].([]any) {
					if u := u.(map[string]any); u["name"] == upstream.name {
						u["push"] = true
					}
				}
				config["listeners"].([]any)[1].(map[string]any)["upstreams"] = []string{upstream.name}
			},
		})
		for _, d := range []*double{s.hub, s.ecr} { // a repository that is not there has no referrers, not even none
			d.CreateRepository("conformance/a")
			d.CreateRepository("conformance/b")
		}
		row(t, "OCI conformance suite", version, "version 1.1, pushing to and pulling from "+upstream.name, func(t *testing.T) {
			dir := t.TempDir()
			out, err := try(t, environment(append(upstream.more, "SSL_CERT_FILE="+s.certificate, "OCI_REGISTRY="+s.registryAddress(), "OCI_TLS=enabled",
				"OCI_USERNAME="+pusher, "OCI_PASSWORD="+password, "OCI_REPO1=conformance/a", "OCI_REPO2=conformance/b", "OCI_VERSION=1.1",
				"OCI_LOG=warn", "OCI_RESULTS_DIR="+dir, "OCI_DATA_SHA512=false")...), suite)
			if err != nil {
				t.Fatalf("%v\n%s", err, tail([]byte(out), 8<<10))
			}
			report, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
			if err != nil {
				t.Fatal(err)
			}
			var ran struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Skipped  int `xml:"skipped,attr"`
				Disabled int `xml:"disabled,attr"`
			}
			if err := xml.Unmarshal(report, &ran); err != nil {
				t.Fatal(err)
			}
			if passed := ran.Tests - ran.Skipped - ran.Disabled - ran.Failures; ran.Failures > 0 || passed < upstream.least {
				t.Errorf("%d passed, %d failed; at least %d are to pass", passed, ran.Failures, upstream.least)
			}
		})
	}
}
