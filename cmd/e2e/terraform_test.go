package e2e

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const terraformDir = "../../deploy/terraform"

// terraformModule is what terraform-config-inspect says of a module.
type terraformModule struct {
	Variables map[string]struct {
		Type, Description string
		Required          bool
	}
	Outputs     map[string]struct{ Description string }
	ModuleCalls map[string]struct{ Source string } `json:"module_calls"`
	Diagnostics []any
}

func inspectTerraform(t *testing.T, dir string) (m terraformModule) {
	t.Helper()
	out, err := try(t, environment(), needBuilt(t, "terraform-config-inspect"), "--json", dir)
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err != nil || len(m.Diagnostics) > 0 {
		t.Errorf("%s: %v, %v", dir, err, m.Diagnostics)
	}
	return m
}

// TestTerraform holds the module to what can be seen without the provider of AWS: form, names, and
// that what it refers to is there.
func TestTerraform(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(terraformDir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatal("no module", err)
	}
	var text strings.Builder
	for _, file := range files {
		if out, err := try(t, environment(), needBuilt(t, "hclfmt"), "-check", file); err != nil {
			t.Errorf("%s is not formatted as hclfmt does: %v\n%s", file, err, out)
		}
		text.Write(read(t, file))
	}
	m := inspectTerraform(t, terraformDir)
	for name, v := range m.Variables {
		if v.Type == "" || v.Description == "" {
			t.Errorf("variable %s has no type or no description", name)
		}
		if !strings.Contains(text.String(), "var."+name) {
			t.Errorf("nothing uses the variable %s", name)
		}
	}
	for name, o := range m.Outputs {
		if o.Description == "" {
			t.Errorf("output %s has no description", name)
		}
	}
	missing, found := unresolved(text.String(), m)
	if len(missing) > 0 || found < 50 {
		t.Errorf("%d references, of which nothing declares %q", found, missing)
	}
	// The check above finds what is missing.
	if missing, _ := unresolved(text.String()+"\nvar.nothing aws_lb.other.arn local.none data.aws_vpc.that.id", m); len(missing) != 4 {
		t.Errorf("of four wrong references, %q are found", missing)
	}
}

// unresolved returns the references in a module that lead nowhere, and how many references it has.
func unresolved(text string, m terraformModule) (missing []string, found int) {
	declared := map[string]bool{}
	for name := range m.Variables {
		declared["var."+name] = true
	}
	for _, d := range regexp.MustCompile(`(?m)^(resource|data) "([a-z_]+)" "([a-z_]+)"`).FindAllStringSubmatch(text, -1) {
		declared[strings.TrimPrefix(d[1]+".", "resource.")+d[2]+"."+d[3]] = true
	}
	for _, block := range regexp.MustCompile(`(?ms)^locals \{\n(.*?)^\}`).FindAllStringSubmatch(text, -1) {
		for _, d := range regexp.MustCompile(`(?m)^  ([a-z_]+) +=`).FindAllStringSubmatch(block[1], -1) {
			declared["local."+d[1]] = true
		}
	}
	for _, ref := range regexp.MustCompile(`\b(?:var|local|data\.aws_[a-z_]+|aws_[a-z_]+)\.[a-z_]+`).FindAllString(text, -1) {
		found++
		if !declared[ref] && !slices.Contains(missing, ref) {
			missing = append(missing, ref)
		}
	}
	return missing, found
}

// TestTerraformPolicies: the module finds every place of the documented policies that names an
// account or a region.
func TestTerraformPolicies(t *testing.T) {
	text := string(read(t, filepath.Join(terraformDir, "main.tf")))
	const placeholder = "eu-west-1:123456789012"
	if !strings.Contains(text, `"`+placeholder+`"`) || !strings.Contains(text, `"arn:aws:"`) || !strings.Contains(text, `/../iam/${var.push ? "push" : "pull"}.json`) {
		t.Fatal("main.tf does not put account, region and partition into the policies of deploy/iam")
	}
	for _, file := range []string{"pull.json", "push.json"} {
		policy := strings.NewReplacer("arn:aws:", "arn:PARTITION:", placeholder, "REGION:ACCOUNT").Replace(string(read(t, filepath.Join("../../deploy/iam", file))))
		if strings.Contains(policy, "eu-west-1") || strings.Contains(policy, "123456789012") || !strings.Contains(policy, "arn:PARTITION:ecr:REGION:ACCOUNT:") {
			t.Errorf("%s names an account or a region that the module does not replace:\n%s", file, policy)
		}
	}
}

// TestTerraformConfiguration checks the configuration of the module, and its times against those of
// Fargate.
func TestTerraformConfiguration(t *testing.T) {
	out := run(t, environment("DRAY_CACHE_DIRECTORY=/cache"), built.dray, "check", "--config", filepath.Join(terraformDir, "dray.yaml"))
	var effective struct {
		Admin struct {
			HealthAddress string `yaml:"health_address"`
		}
		Listeners []struct{ Address string }
		Limits    struct {
			ShutdownPause time.Duration `yaml:"shutdown_pause"`
			ShutdownGrace time.Duration `yaml:"shutdown_grace"`
		}
	}
	decodeChecked(t, out, &effective)
	if l := effective.Limits; l.ShutdownPause <= 0 || l.ShutdownGrace <= 0 || l.ShutdownPause+l.ShutdownGrace >= 2*time.Minute {
		t.Errorf("%s and %s to stop", l.ShutdownPause, l.ShutdownGrace)
	}
	if !strings.HasSuffix(effective.Listeners[0].Address, ":5000") || !strings.HasSuffix(effective.Admin.HealthAddress, ":9090") {
		t.Errorf("it listens on %+v", effective)
	}
}

// TestTerraformExample: the example of docs/install.md is formatted, gives each variable that it
// has to, and no other than there are.
func TestTerraformExample(t *testing.T) {
	_, example, found := strings.Cut(string(read(t, "../../docs/install.md")), "```hcl\n")
	example, _, end := strings.Cut(example, "```")
	if !found || !end {
		t.Fatal("docs/install.md has no example")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.tf"), []byte(example))
	if out, err := try(t, environment(), needBuilt(t, "hclfmt"), "-check", filepath.Join(dir, "main.tf")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if calls := inspectTerraform(t, dir).ModuleCalls; calls["dray"].Source != "./deploy/terraform" {
		t.Errorf("modules: %v", calls)
	}
	given := map[string]bool{}
	for _, argument := range regexp.MustCompile(`(?m)^  ([a-z_]+) +=`).FindAllStringSubmatch(example, -1) {
		given[argument[1]] = true
	}
	delete(given, "source")
	for name, v := range inspectTerraform(t, terraformDir).Variables {
		if v.Required && !given[name] {
			t.Errorf("the example does not give %s", name)
		}
		delete(given, name)
	}
	if len(given) > 0 {
		t.Errorf("the module has no variables %v", given)
	}
}
