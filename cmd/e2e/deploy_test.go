package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// statement is the part of an IAM statement that the policies use.
type statement struct {
	Sid, Effect string
	Action      oneOrMore
	Resource    oneOrMore
	Condition   map[string]map[string]oneOrMore `json:",omitempty"`
}

// oneOrMore is a string or a list of them, as IAM has it.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// TestIAMPolicies holds the policies to what the text beside them explains: no more, and no less.
func TestIAMPolicies(t *testing.T) {
	actions := map[string][]string{}
	for _, file := range []string{"pull.json", "push.json"} {
		f, err := os.Open(filepath.Join("../../deploy/iam", file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var policy struct {
			Version   string
			Statement []statement
		}
		strict := json.NewDecoder(f)
		strict.DisallowUnknownFields()
		if err := strict.Decode(&policy); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if policy.Version != "2012-10-17" {
			t.Errorf("%s: version %q", file, policy.Version)
		}
		for _, s := range policy.Statement {
			if s.Effect != "Allow" || len(s.Resource) == 0 {
				t.Errorf("%s: statement %s: %+v", file, s.Sid, s)
			}
			everywhere := slices.Contains(s.Resource, "*")
			for _, action := range s.Action {
				// The two that AWS knows no resource for.
				if everywhere && action != "ecr:GetAuthorizationToken" && action != "cloudwatch:PutMetricData" {
					t.Errorf("%s: %s is allowed on every resource", file, action)
				}
				actions[file] = append(actions[file], action)
			}
		}
		slices.Sort(actions[file])
	}
	readme := read(t, "../../deploy/README.md")
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:ecr|cloudwatch|signer):[A-Za-z]+)` \\|").FindAllSubmatch(readme, -1) {
		explained = append(explained, string(m[1]))
	}
	slices.Sort(explained)
	if diff := cmp.Diff(explained, actions["push.json"]); diff != "" {
		t.Errorf("actions that README.md explains (-) and push.json allows (+):\n%s", diff)
	}
	for _, action := range actions["pull.json"] {
		if !slices.Contains(actions["push.json"], action) {
			t.Errorf("%s is in pull.json and not in push.json", action)
		}
		if regexp.MustCompile(`:(Put|Create|Initiate|Upload|Complete|Delete|Tag)`).MatchString(action) {
			t.Errorf("pull.json allows to write: %s", action)
		}
	}
}

// TestSystemdUnit asks systemd what it thinks of the unit.
func TestSystemdUnit(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	unit := read(t, "../../deploy/systemd/dray.service")
	file := filepath.Join(t.TempDir(), "dray.service")
	write(t, file, []byte(strings.ReplaceAll(string(unit), "/usr/local/bin/dray", built.dray)))
	if out, err := try(t, environment(), analyze, "verify", "--man=no", file); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// In tenths: at most 2.0 of 10, where most services that come with a distribution have more
	// than 9.
	if out, err := try(t, environment(), analyze, "security", "--offline=true", "--threshold=20", "--no-pager", file); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	users, err := filepath.Abs("../../deploy/systemd/dray.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	run(t, environment(), need(t, "systemd-sysusers"), "--root="+root, users)
	passwd := read(t, filepath.Join(root, "etc/passwd"))
	if !strings.HasPrefix(string(passwd), "dray:") {
		t.Errorf("systemd-sysusers made %q", passwd)
	}
}

// TestDocumentedFiles compares docs/clients.md with the files that dray setup prints.
func TestDocumentedFiles(t *testing.T) {
	page := read(t, "../../docs/clients.md")
	shown := map[string]bool{}
	for _, block := range strings.Split(string(page), "```")[1:] {
		if kind, text, _ := strings.Cut(block, "\n"); kind != "" {
			shown[strings.Join(strings.Fields(text), "")] = true
		}
	}
	m := setupMachine(t)
	for client, files := range map[string][]string{
		"docker":     {"/etc/docker/daemon.json", "/etc/docker/certs.d/quay.io/hosts.toml"},
		"containerd": {"/etc/containerd/certs.d/docker.io/hosts.toml"},
		"k3s":        {"/etc/rancher/k3s/registries.yaml"},
		"buildkit":   {"/etc/buildkit/buildkitd.toml"},
		"podman":     {"/etc/containers/registries.conf.d/50-dray.conf"},
	} {
		type file struct{ Path, Content string }
		var printed struct{ Files []file }
		if err := json.Unmarshal([]byte(run(t, environment(), append(m.setupCommand(client, "100"), "--json")...)), &printed); err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			i := slices.IndexFunc(printed.Files, func(f file) bool { return f.Path == path })
			if i < 0 || !shown[strings.Join(strings.Fields(printed.Files[i].Content), "")] {
				t.Errorf("docs/clients.md does not show %s as dray setup %s prints it: %v", path, client, printed.Files)
			}
		}
	}
}

// TestDeployedConfiguration checks the configuration in deploy as it is, but for the files it
// names.
func TestDeployedConfiguration(t *testing.T) {
	dir := t.TempDir()
	makeCertificate(t, dir, drayName)
	write(t, filepath.Join(dir, "htpasswd"), []byte("ci:$2a$04$PPvBFbeANsYCuTbUjj4ZTOdHTFXhbXdhRVbfs6Yh9rpRsDzyNr3eW\n"))
	config := read(t, "../../deploy/dray.yaml")
	text := strings.NewReplacer("/etc/dray/", dir+"/", "/var/cache/dray", dir+"/cache").Replace(string(config))
	write(t, filepath.Join(dir, "dray.yaml"), []byte(text))
	run(t, environment(), built.dray, "check", "--config", filepath.Join(dir, "dray.yaml"))
}
