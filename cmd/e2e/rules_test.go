package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// alertRule is an alert of deploy/helm/rules.yaml.
type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// readRules returns the alerts, and the file that has them.
func readRules(t *testing.T) (rules []alertRule, file string) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(chartDir, "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var groups struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(read(t, file), &groups); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules, file
}

// documentedMetrics returns the labels of the metrics that dray has, by name.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	metrics := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(dray_[a-z_]+)` \\| ([a-z_, ]*) \\|").FindAllSubmatch(read(t, "../../docs/metrics.md"), -1) {
		metrics[string(row[1])] = strings.Split(string(row[2]), ", ")
	}
	if len(metrics) < 50 {
		t.Fatalf("docs/metrics.md has %d metrics", len(metrics))
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes"} { // of the client library
		metrics[name] = nil
	}
	return metrics
}

var (
	aggregations = regexp.MustCompile(`\b(sum|min|max|count|absent)\b`)

	selectors = regexp.MustCompile(`\b((?:dray|process|go)_[a-z_]+)(?:\{([^}]*)\})?`)
	matchers  = regexp.MustCompile(`([a-z_]+)=~?"([^"]*)"`)
	groupings = regexp.MustCompile(`\bby \(([a-z_, ]+)\) \(`)
)

// checkExpression complains about metrics, labels and values of labels that do not exist. It
// returns the labels that the result of the expression has.
func checkExpression(t *testing.T, where, expr string, metrics map[string][]string) (carried []string) {
	t.Helper()
	words := string(read(t, "../dray/testdata/words/metrics.golden"))
	labelsOf := func(name string) []string {
		bare := strings.TrimSuffix(name, "_bucket")
		labels, found := metrics[bare]
		if !found {
			t.Errorf("%s asks for %s, which docs/metrics.md does not have", where, name)
		}
		if labels = append([]string{"instance"}, labels...); bare != name {
			labels = append(labels, "le")
		}
		return labels
	}
	asked := selectors.FindAllStringSubmatch(expr, -1)
	if len(asked) == 0 {
		t.Errorf("%s asks for no metric", where)
	}
	for _, s := range asked {
		labels := labelsOf(s[1])
		carried = append(carried, labels...)
		for _, m := range matchers.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(labels, m[1]) {
				t.Errorf("%s asks for the label %s of %s", where, m[1], s[1])
			}
			for value := range strings.SplitSeq(m[2], "|") {
				if m[1] != "instance" && m[1] != "status" && !strings.Contains(words, "\n\""+value+"\"\n") {
					t.Errorf("%s asks for %s=%q, which no label has", where, m[1], value)
				}
			}
		}
	}
	if aggregations.MatchString(expr) {
		carried = nil // what aggregates drops labels
	}
	for _, at := range groupings.FindAllStringSubmatchIndex(expr, -1) {
		inner, depth := expr[at[1]:], 1
		for i, c := range inner {
			if depth += map[rune]int{'(': 1, ')': -1}[c]; depth == 0 {
				inner = inner[:i]
				break
			}
		}
		for label := range strings.SplitSeq(expr[at[2]:at[3]], ", ") {
			carried = append(carried, label)
			for _, s := range selectors.FindAllStringSubmatch(inner, -1) {
				if !slices.Contains(labelsOf(s[1]), label) {
					t.Errorf("%s groups %s by %s, which it does not have", where, s[1], label)
				}
			}
		}
	}
	return carried
}

// TestAlertRules: each alert asks for metrics and labels that there are, and says what it is about.
func TestAlertRules(t *testing.T) {
	metrics := documentedMetrics(t)
	rules, _ := readRules(t)
	if len(rules) < 10 {
		t.Fatalf("%d alerts", len(rules))
	}
	for _, r := range rules {
		carried := checkExpression(t, r.Alert, r.Expr, metrics)
		for _, used := range regexp.MustCompile(`\$labels\.([a-z_]+)`).FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
			if !slices.Contains(carried, used[1]) {
				t.Errorf("%s: the text uses the label %s, and the expression drops it", r.Alert, used[1])
			}
		}
		if severity := r.Labels["severity"]; severity != "warning" && severity != "critical" {
			t.Errorf("%s has severity %q", r.Alert, severity)
		}
		for _, text := range []string{"summary", "description", "runbook"} {
			if r.Annotations[text] == "" {
				t.Errorf("%s has no %s", r.Alert, text)
			}
		}
	}
}

// alertCases has, for each alert, a metric that makes it fire and one that does not, from minute 0
// on, and minutes at which the first is not yet an alert, and is one.
var alertCases = map[string]struct {
	bad, good     string // series, with values of each minute
	silent, fires int
}{
	"DrayAbsent":             {`up{job="dray"} 0x200`, `dray_build_info{version="1"} 1x200`, 4, 6},
	"DrayUpstreamDown":       {`dray_upstream_breaker_open{upstream="hub"} 1x200`, `dray_upstream_breaker_open{upstream="hub"} 0x200`, 4, 6},
	"DrayServesStaleTags":    {`dray_stale_answers_total{upstream="hub"} 0+1x200`, `dray_stale_answers_total{upstream="hub"} 0x10 0+1x10 10x180`, 59, 63},
	"DrayUpstreamThrottles":  {`dray_upstream_throttled_total{upstream="hub",operation="pull"} 0+1x200`, `dray_upstream_throttled_total{upstream="hub",operation="pull"} 5x200`, 29, 33},
	"DrayECRTokenEnds":       {`dray_ecr_token_expiry_timestamp_seconds{region="eu-west-1",role="",via=""} 3000x200`, `dray_ecr_token_expiry_timestamp_seconds{region="eu-west-1",role="",via=""} 43200x200`, 4, 6},
	"DrayQueueOld":           {`dray_queue_oldest_seconds 0+60x200`, `dray_queue_oldest_seconds 200x200`, 5, 8},
	"DrayQueueRefused":       {`dray_queue_pushes{state="failed"} 2x200`, `dray_queue_pushes{state="waiting"} 2x200`, 0, 2},
	"DrayPushesFail":         {`dray_pushes_total{upstream="ecr",result="failed"} 0+1x200`, `dray_pushes_total{upstream="ecr",result="rejected"} 0+1x200`, 14, 18},
	"DrayCacheBypassed":      {`dray_cache_degraded_total{reason="disk full"} 0+1x200`, `dray_cache_degraded_total{reason="disk full"} 3x200`, 14, 18},
	"DrayDiskRots":           {`dray_disk_rot_total 0x10 1x190`, `dray_disk_rot_total 1x200`, 5, 20},
	"DrayWrongContent":       {`dray_cache_corrupt_total{from="origin"} 0x10 1x190`, `dray_cache_corrupt_total{from="upload"} 0x10 1x190`, 5, 20},
	"DrayFactsFail":          {`dray_meta_up 0x200`, `dray_meta_up 1x200`, 9, 11},
	"DrayCertificateEnds":    {`dray_certificate_expiry_timestamp_seconds{listener="mirror"} 1000000x200`, `dray_certificate_expiry_timestamp_seconds{listener="mirror"} 2000000x200`, 59, 61},
	"DrayCertificateRefused": {`dray_tls_failures_total{listener="mirror",reason="certificate refused"} 0+1x200`, `dray_tls_failures_total{listener="mirror",reason="other"} 0+1x200`, 29, 33},
	"DrayReloadFailed":       {`dray_config_last_reload_successful{instance="a"} 0x200`, `dray_config_last_reload_successful{instance="a"} 1x200`, 4, 6},
	"DrayQuotaLow":           {`dray_upstream_quota_remaining{upstream="hub"} 9x200`, `dray_upstream_quota_remaining{upstream="hub"} 50x200`, 9, 11},
	"DrayBucketFails":        {`dray_bucket_read_breaker_open` + strings.Repeat(" 1 0 0 0 0", 40), `dray_bucket_read_breaker_open 0x164 1 0x34`, 14, 16},
	"DrayFleetDrifts":        {`dray_fleet_drift{upstream="ecr"} 1x200`, `dray_fleet_drift{upstream="ecr"} 0x200`, 14, 16},
	"DrayFactsUnproven":      {`dray_fleet_unproven_facts_total{facts="visibility"} 0x10 5x190`, `dray_fleet_unproven_facts_total{facts="visibility"} 5x200`, 5, 20},
	"DrayConnectionsFull":    {`dray_connections{instance="a"} 95x200`, `dray_connections{instance="a"} 80x200`, 4, 6},
}

// TestAlertsFire asks Prometheus' own tool when the alerts fire.
func TestAlertsFire(t *testing.T) {
	promtool := need(t, "promtool")
	rules, file := readRules(t)
	run(t, environment(), promtool, "check", "rules", file)
	type (
		series struct {
			Series string `json:"series"`
			Values string `json:"values"`
		}
		samples  []map[string]any
		question struct {
			Expr     string  `json:"expr"`
			EvalTime string  `json:"eval_time"`
			Samples  samples `json:"exp_samples"`
		}
		example struct {
			Interval  string     `json:"interval"`
			Series    []series   `json:"input_series"`
			Questions []question `json:"promql_expr_test"`
		}
	)
	var examples []example
	add := func(alert, text string, minute int, fires bool) {
		metric, values, _ := strings.Cut(text, " ")
		q := question{Expr: `count by (alertname) (ALERTS{alertname="` + alert + `",alertstate="firing"})`, EvalTime: fmt.Sprintf("%dm", minute)}
		if fires {
			q.Samples = samples{{"labels": `{alertname="` + alert + `"}`, "value": 1}}
		}
		examples = append(examples, example{"1m", []series{{metric, values}, {`dray_connections_max{instance="a"}`, "100x200"}, {`dray_upstream_quota_limit{upstream="hub"}`, "100x200"}}, []question{q}})
	}
	for _, r := range rules {
		c, found := alertCases[r.Alert]
		if !found {
			t.Errorf("nothing says when %s fires", r.Alert)
			continue
		}
		add(r.Alert, c.bad, c.silent, false)
		add(r.Alert, c.bad, c.fires, true)
		add(r.Alert, c.good, 180, false)
	}
	text, err := json.Marshal(map[string]any{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": examples})
	if err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(t.TempDir(), "test.yaml")
	write(t, test, text)
	run(t, environment(), promtool, "test", "rules", test)
}
