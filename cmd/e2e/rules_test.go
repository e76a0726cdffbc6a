package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
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

// TestAlertRules: each alert asks for metrics and labels that there are, and says what it is about.
func TestAlertRules(t *testing.T) {
	metrics := map[string]map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(dray_[a-z_]+)` \\| ([a-z_, ]*) \\|").FindAllSubmatch(read(t, "../../docs/metrics.md"), -1) {
		metrics[string(row[1])] = map[string]bool{}
		for _, label := range strings.Split(string(row[2]), ", ") {
			metrics[string(row[1])][label] = true
		}
	}
	rules, _ := readRules(t)
	if len(rules) < 10 || len(metrics) < 50 {
		t.Fatalf("%d alerts, %d metrics", len(rules), len(metrics))
	}
	for _, r := range rules {
		names := regexp.MustCompile(`dray_[a-z_]+`).FindAllString(r.Expr, -1)
		labels := regexp.MustCompile(`\b([a-z_]+)="`).FindAllStringSubmatch(r.Expr, -1)
		if by := regexp.MustCompile(`by \(([a-z_, ]+)\)`).FindStringSubmatch(r.Expr); by != nil {
			for _, label := range strings.Split(by[1], ", ") {
				labels = append(labels, []string{"", label})
			}
		}
		for _, used := range regexp.MustCompile(`\$labels\.([a-z_]+)`).FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
			if !regexp.MustCompile(`by \([a-z_, ]*\b` + used[1] + `\b`).MatchString(r.Expr) {
				t.Errorf("%s: the text uses the label %s, and the expression drops it", r.Alert, used[1])
			}
		}
		if len(names) == 0 {
			t.Errorf("%s asks for no metric", r.Alert)
		}
		for _, name := range names {
			if metrics[name] == nil {
				t.Errorf("%s asks for %s, which docs/metrics.md does not have", r.Alert, name)
			}
			for _, label := range labels {
				if !metrics[name][label[1]] {
					t.Errorf("%s asks for the label %s of %s", r.Alert, label[1], name)
				}
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
		examples = append(examples, example{"1m", []series{{metric, values}, {`dray_connections_max{instance="a"}`, "100x200"}}, []question{q}})
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
