package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/fleet/fleettest"
	"dray/cache/meta/metatest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
	"dray/mirror/delegate"
	"dray/mirror/writer"
)

// metricRow finds the last column of a row of docs/metrics.md.
var metricRow = regexp.MustCompile("(?m)^\\| `(dray_[a-z0-9_]+)` \\|.* \\| ([^|]*) \\|$")

// adviceOf returns what the page says to do when a metric moves, by name, and the page up to its
// table. People write these, and the test the rest.
func adviceOf(t *testing.T) (head string, advice map[string]string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	const rule = "\n|---|---|---|---|\n"
	head, table, found := strings.Cut(string(page), rule)
	if !found {
		t.Fatal("docs/metrics.md has no table")
	}
	advice = map[string]string{}
	for _, row := range metricRow.FindAllStringSubmatch(table, -1) {
		advice[row[1]] = row[2]
	}
	return head + rule, advice
}

// described has everything switched on that counts something.
var described = []string{
	"  push: true\n", "  push: true\n  checks: [gate]\n  acknowledge: local\n  fallbacks: [hub]\n",
	"upstreams:\n", "bucket: {url: s3://shared}\nnotifications: [{url: 'http://127.0.0.1:1'}]\ncloudwatch: {region: eu-west-1, dimensions: image}\n" +
		"checks:\n- {name: gate, names: {mode: enforce, forbidden_tags: [latest]}}\nupstreams:\n- {name: builds, kind: local, prefixes: [builds]}\n",
}

var descPattern = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: "(.*?)",(?: unit: ".*",)? constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// metricsOf are the rows of the page, by name.
func metricsOf(t *testing.T, r prometheus.Collector) map[string]string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() { r.Describe(descs); close(descs) }()
	rows := map[string]string{}
	for d := range descs {
		parts := descPattern.FindStringSubmatch(d.String())
		if parts == nil {
			t.Errorf("not understood: %s", d)
			continue
		}
		if !strings.HasPrefix(parts[1], "dray_") {
			continue
		}
		var labels []string
		for label := range strings.SplitSeq(parts[3], ",") {
			if name, _, ok := strings.Cut(label, "="); ok {
				labels = append(labels, name)
			}
		}
		if parts[4] != "" {
			labels = append(labels, strings.Split(parts[4], ",")...)
		}
		row := fmt.Sprintf("| `%s` | %s | %s |", parts[1], strings.Join(labels, ", "), strings.ReplaceAll(parts[2], `\"`, `"`))
		if other := rows[parts[1]]; other != "" && other != row {
			t.Errorf("%s has two meanings:\n%s\n%s", parts[1], other, row)
		}
		rows[parts[1]] = row
	}
	return rows
}

// membersOf returns the metrics of a member of a fleet, which the stack does not have without a
// Redis.
func membersOf(s *stack) *prometheus.Registry {
	s.Helper()
	secret := filepath.Join(s.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
		s.Fatal(err)
	}
	m, err := member.New(member.Options{
		Config: config.Config{
			State: config.State{Directory: s.TempDir()}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
			Fleet: config.Fleet{Address: "127.0.0.1:0", Advertise: "127.0.0.1:0", SecretFile: secret},
		},
		Leases: &fleettest.Memory{}, Cache: s.cache, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	m.Facts(metatest.NewMemory())
	members := prometheus.NewRegistry()
	members.MustRegister(m.Collectors()...)
	members.MustRegister(delegate.New(m.Part(), slog.New(slog.DiscardHandler), nil).Collectors()...)
	members.MustRegister(writer.New(*m.Writers()).Collectors()...)
	return members
}

// TestMetricsAreDocumented: the page has every metric and says what to do when it moves, and no
// page names one that does not exist. With -update, the test writes all of the table but its last
// column.
func TestMetricsAreDocumented(t *testing.T) {
	s := startStack(t, t.TempDir(), described...)
	rows := metricsOf(t, s.metrics)
	maps.Copy(rows, metricsOf(t, membersOf(s)))
	var names []string
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	page, advice := adviceOf(t)
	for _, name := range names {
		if len(advice[name]) < len("Nothing.") {
			t.Errorf("docs/metrics.md does not say what to do when %s moves: write it into the last column", name)
		}
		page += rows[name] + " " + advice[name] + " |\n"
	}
	golden(t, "../../docs/metrics.md", page)

	for _, name := range namedIn(t, "../..", ".go", regexp.MustCompile(`"(dray_[a-z0-9_]+)"`), "_test.go") {
		if !slices.ContainsFunc(names, func(have string) bool { return strings.HasPrefix(have, name) }) {
			t.Errorf("%s is in the source, and this test does not switch on what counts it", name)
		}
	}
	for _, name := range namedIn(t, "../../docs", ".md", regexp.MustCompile("`(dray_[a-z0-9_]+)"), "") {
		bare := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if rows[name] == "" && rows[bare] == "" {
			t.Errorf("docs name %s, which does not exist", name)
		}
	}
}

// TestAlertsBeginAtZero: the series that the documents tell operators to watch exist before their
// first event, because alerts look for increases.
func TestAlertsBeginAtZero(t *testing.T) {
	s := startStack(t, t.TempDir(), described...)
	families, err := prometheus.Gatherers{s.metrics, membersOf(s)}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## What to watch\n")
	table, _, _ = strings.Cut(table, "\n## ")
	watched := 0
	for _, m := range regexp.MustCompile("`(dray_[a-z0-9_]+_total)`").FindAllStringSubmatch(table, -1) {
		watched++
		if !there[m[1]] && !slices.Contains([]string{
			"dray_response_bytes_total", "dray_ecr_token_calls_total", // grow all the time
			"dray_check_verdicts_total", // shows shares
		}, m[1]) {
			t.Errorf("%s is not there until it happens", m[1])
		}
	}
	if watched < 10 {
		t.Errorf("operators are told to watch %d counters", watched)
	}
}

// namedIn finds what a pattern catches in the files below a directory.
func namedIn(t *testing.T, root, extension string, pattern *regexp.Regexp, except string) []string {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, f os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case f.IsDir() && strings.HasPrefix(f.Name(), ".") && len(f.Name()) > 2, f.IsDir() && f.Name() == "testdata":
			return filepath.SkipDir
		case f.IsDir() || !strings.HasSuffix(path, extension) || except != "" && strings.HasSuffix(path, except):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range pattern.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
