//lint:file-ignore SA1019 every Grafana imports this schema

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// expression is a query of the dashboard.
type expression struct{ panel, expr, legend string }

// readDashboard reads the dashboard by the types that Grafana makes of its own schema. They refuse
// what the schema does not have.
func readDashboard(t *testing.T) (d dashboard.Dashboard, all []expression) {
	t.Helper()
	runtime := cog.NewRuntime()
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	text := read(t, filepath.Join(chartDir, "dashboard.json"))
	// The strict decoder returns an error without a text where there is none, and then leaves panels
	// out. So another one decodes them.
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
		t.Fatalf("not a dashboard of Grafana: %v", err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil && err.Error() != "" {
		t.Errorf("Grafana would refuse the dashboard: %v", err)
	}
	for right, wrong := range map[string]string{`"legendFormat"`: `"legend"`, `"fillOpacity"`: `"opacity"`, `"graphMode"`: `"graph"`, `"gridPos"`: `"grid"`, `"refresh": 2`: `"refreshed": 2`} {
		var changed dashboard.Dashboard
		if err := changed.UnmarshalJSONStrict([]byte(strings.Replace(string(text), right, wrong, 1))); err == nil || err.Error() == "" {
			t.Errorf("the types of Grafana take %s for %s", wrong, right)
		}
	}
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue
		}
		for _, q := range p.Panel.Targets {
			query, ok := q.(*prometheus.Dataquery)
			if !ok {
				t.Fatalf("%s has a query of %T", *p.Panel.Title, q)
			}
			all = append(all, expression{*p.Panel.Title, query.Expr, *query.LegendFormat})
		}
	}
	return d, all
}

// TestDashboard: Grafana can read the dashboard, each panel says what it shows and in which unit,
// none covers another, and all queries ask for metrics and labels that there are.
func TestDashboard(t *testing.T) {
	d, all := readDashboard(t)
	metrics := documentedMetrics(t)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if !slices.Equal(variables, []string{"datasource", "instance"}) {
		t.Errorf("variables: %v", variables)
	}
	ids, cells, rows := map[uint32]bool{}, map[[2]uint32]string{}, 0
	for _, p := range d.Panels {
		if p.RowPanel != nil {
			rows++
			if ids[p.RowPanel.Id] {
				t.Errorf("two panels have the id %d", p.RowPanel.Id)
			}
			ids[p.RowPanel.Id] = true
			continue
		}
		title, grid := *p.Panel.Title, *p.Panel.GridPos
		if ids[*p.Panel.Id] {
			t.Errorf("two panels have the id %d", *p.Panel.Id)
		}
		ids[*p.Panel.Id] = true
		if p.Panel.Description == nil || len(*p.Panel.Description) < 20 || p.Panel.FieldConfig.Defaults.Unit == nil {
			t.Errorf("%s has no description, or no unit", title)
		}
		if p.Panel.Datasource == nil || *p.Panel.Datasource.Uid != "${datasource}" {
			t.Errorf("%s asks another data source than the chosen one", title)
		}
		for x := grid.X; x < grid.X+grid.W; x++ {
			for y := grid.Y; y < grid.Y+grid.H; y++ {
				if other := cells[[2]uint32{x, y}]; other != "" || x > 23 {
					t.Errorf("%s covers %q, or is outside", title, other)
				}
				cells[[2]uint32{x, y}] = title
			}
		}
	}
	if rows < 8 || len(all) < 50 {
		t.Errorf("%d rows, %d queries", rows, len(all))
	}
	for _, e := range all {
		carried := checkExpression(t, e.panel, e.expr, metrics)
		for _, label := range regexp.MustCompile(`\{\{([a-z_]+)\}\}`).FindAllStringSubmatch(e.legend, -1) {
			if !slices.Contains(carried, label[1]) {
				t.Errorf("%s: the legend uses the label %s, and the query drops it", e.panel, label[1])
			}
		}
		for _, s := range selectors.FindAllStringSubmatch(e.expr, -1) {
			if !strings.Contains(s[2], `instance=~"$instance"`) {
				t.Errorf("%s asks all instances for %s", e.panel, s[1])
			}
		}
	}
}

// TestDashboardShows asks Prometheus' own tool for every query, on one series for each of the
// metrics that the queries select: all have a result.
func TestDashboardShows(t *testing.T) {
	promtool := need(t, "promtool")
	_, all := readDashboard(t)
	metrics := documentedMetrics(t)
	type (
		series struct {
			Series string `json:"series"`
			Values string `json:"values"`
		}
		question struct {
			Expr     string           `json:"expr"`
			EvalTime string           `json:"eval_time"`
			Samples  []map[string]any `json:"exp_samples"`
		}
		rule struct {
			Record string `json:"record"`
			Expr   string `json:"expr"`
		}
	)
	filled := strings.NewReplacer("$__rate_interval", "5m", "$instance", "a.*")
	values := map[string]string{
		"dray_disk_max_bytes": "1000000x400", "dray_certificate_expiry_timestamp_seconds": "2000000x400",
		"dray_queue_oldest_seconds": "0+1x400",
	}
	given, questions, rules := map[string]string{}, []question{}, []rule{}
	for i, e := range all {
		expr := filled.Replace(e.expr)
		rules = append(rules, rule{fmt.Sprintf("dashboard:query:%d", i), expr})
		questions = append(questions, question{"count(" + expr + ") > bool 0", "390m", []map[string]any{{"labels": "{}", "value": 1}}})
		for _, s := range selectors.FindAllStringSubmatch(expr, -1) {
			labels := map[string]string{"instance": "a1"}
			for _, label := range metrics[strings.TrimSuffix(s[1], "_bucket")] {
				if label != "" {
					labels[label] = "x"
				}
			}
			for _, m := range matchers.FindAllStringSubmatch(s[2], -1) {
				if m[1] != "instance" {
					value, _, _ := strings.Cut(strings.ReplaceAll(m[2], ".", "0"), "|")
					labels[m[1]] = value
				}
			}
			bounds := []string{""}
			if strings.HasSuffix(s[1], "_bucket") {
				bounds = []string{"1", "+Inf"}
			}
			for _, bound := range bounds {
				if bound != "" {
					labels["le"] = bound
				}
				var pairs []string
				for _, name := range slices.Sorted(maps.Keys(labels)) {
					pairs = append(pairs, fmt.Sprintf("%s=%q", name, labels[name]))
				}
				given[s[1]+"{"+strings.Join(pairs, ",")+"}"] = s[1]
			}
		}
	}
	var input []series
	for _, text := range slices.Sorted(maps.Keys(given)) {
		changes := values[given[text]]
		if changes == "" {
			changes = "0+1x400"
		}
		input = append(input, series{text, changes})
	}
	dir := t.TempDir()
	toFile := func(name string, content any) string {
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	file := toFile("rules.yaml", map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	run(t, environment(), promtool, "check", "rules", file)
	run(t, environment(), promtool, "test", "rules", toFile("test.yaml", map[string]any{
		"evaluation_interval": "1m", "tests": []any{map[string]any{"interval": "1m", "input_series": input, "promql_expr_test": questions}},
	}))
}
