package e2e

import (
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/upstream/ecrtest"
)

// listOfECR names the tests of the conformance suite that fail with ECR behind dray, each with the
// reason, which is ECR's.
const listOfECR = "testdata/conformance-ecr.txt"

// conformance runs the conformance suite of the OCI distribution specification against repositories
// of a stack's registry listener, and returns the names of the tests that failed, sorted, each
// once.
func (s *stack) conformance(t *testing.T, suite, prefix, version string, least int) []string {
	t.Helper()
	dir := t.TempDir()
	name := prefix + "conformance/v" + version
	out, err := try(t, environment("SSL_CERT_FILE="+s.certificate, "OCI_REGISTRY="+s.registryAddress(), "OCI_TLS=enabled",
		"OCI_USERNAME="+pusher, "OCI_PASSWORD="+password, "OCI_REPO1="+name+"/a", "OCI_REPO2="+name+"/b", "OCI_VERSION="+version,
		"OCI_LOG=warn", "OCI_RESULTS_DIR="+dir), suite)
	report, readErr := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if readErr != nil {
		t.Fatalf("%v, %v\n%s", readErr, err, tail([]byte(out), 8<<10))
	}
	var ran struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Disabled int `xml:"disabled,attr"`
		Cases    []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(report, &ran); err != nil {
		t.Fatal(err)
	}
	if passed := ran.Tests - ran.Skipped - ran.Disabled - ran.Failures; passed < least {
		t.Errorf("%d passed, %d failed, %d were left out; at least %d are to pass", passed, ran.Failures, ran.Skipped+ran.Disabled, least)
	}
	var failed []string
	for _, c := range ran.Cases {
		if c.Status != "passed" && c.Status != "skipped" && c.Status != "disabled" {
			failed = append(failed, c.Name)
		}
	}
	if ran.Failures > 0 && len(failed) == 0 || ran.Failures == 0 && err != nil {
		t.Fatalf("%d failures, of which the report names %d: %v\n%s", ran.Failures, len(failed), err, tail([]byte(out), 8<<10))
	}
	slices.Sort(failed)
	return slices.Compact(failed)
}

// hostedRegistry is a second dray, which keeps what it is given: a registry that can do all that
// the specification wants.
func hostedRegistry(t *testing.T) (url string) {
	t.Helper()
	dir, ip := shortDir(t), nextIP()
	file := filepath.Join(dir, "dray.yaml")
	write(t, file, fmt.Appendf(nil, `
listeners: [{address: "%s:5000"}]
upstreams: [{name: own, kind: local}]
cache: {directory: %s, min_free_bytes: 64MiB}
admin: {address: "%s:6060"}
`, ip, filepath.Join(dir, "cache"), ip))
	start(t, "registry", environment("HOME="+dir, "GOTRACEBACK=all"), built.dray, "serve", "--config", file).
		awaitHTTP("http://" + net.JoinHostPort(ip, "6060") + "/readyz")
	return "http://" + net.JoinHostPort(ip, "5000")
}

// TestConformance holds dray to the whole suite, in the version of today and in the one to come:
// with content that lies here, with a registry behind it that can do all that the specification
// wants, and with ECR, where everything that fails is on a list.
func TestConformance(t *testing.T) {
	suite := need(t, "conformance")
	tool := strings.TrimPrefix(filepath.Base(suite), "conformance-")
	s := newStack(t, stackOptions{
		byAddress: true,
		doubles:   func(o *ecrtest.Options) { o.Switches.SubjectHeader = true },
		configure: func(config map[string]any) {
			upstreams := config["upstreams"].([]any)
			for _, u := range upstreams {
				if u := u.(map[string]any); u["name"] == "ecr" {
					u["delete"] = true
				}
			}
			config["upstreams"] = append(upstreams,
				map[string]any{"name": "hosted", "kind": "local", "prefixes": []string{"hosted"}},
				map[string]any{"name": "registry", "url": hostedRegistry(t), "prefixes": []string{"registry"}, "hosts": []string{"registry.example.com"}, "push": true, "delete": true})
			config["listeners"].([]any)[1].(map[string]any)["upstreams"] = []string{"ecr", "hosted", "registry"}
		},
	})
	for _, version := range []struct {
		name  string
		least int // tests that have to pass
	}{{"1.1", 840}, {"dev", 960}} {
		for _, route := range []string{"hosted", "registry"} {
			row(t, "OCI conformance suite", tool, "version "+version.name+", "+map[string]string{"hosted": "on a route that keeps what it gets", "registry": "forwarded to a registry"}[route], func(t *testing.T) {
				for _, name := range s.conformance(t, suite, route+"/", version.name, version.least) {
					t.Errorf("failed: %s", name)
				}
			})
		}
	}
	row(t, "OCI conformance suite", tool, "version 1.1, forwarded to ECR, but for what ECR lacks", func(t *testing.T) {
		for _, repo := range []string{"a", "b"} { // a repository that is not there has no referrers, not even none
			s.ecr.CreateRepository("conformance/v1.1/" + repo)
		}
		failed := s.conformance(t, suite, "", "1.1", 500)
		if diff := cmp.Diff(listed(t), failed); diff != "" {
			t.Errorf("failures (-%s +now):\n%s", listOfECR, diff)
		}
	})
}

// listed reads the list: a name on each line, comments above them.
func listed(t *testing.T) (names []string) {
	t.Helper()
	text := read(t, listOfECR)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	slices.Sort(names)
	return names
}
