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
	"go.yaml.in/yaml/v3"
)

// TestChartRefuses: values that cannot work, or that would lose data, are refused with the reason.
func TestChartRefuses(t *testing.T) {
	const (
		local  = "config: {upstreams: [{name: ecr, url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, push: true, acknowledge: local}]}\n"
		hosted = "config: {upstreams: [{name: builds, kind: local, prefixes: [builds]}]}\n"
	)
	for name, tc := range map[string]struct{ values, says string }{
		// The templates refuse these.
		"pushes on an emptyDir":        {local + "persistence: {enabled: false}", "upstream ecr has acknowledge: local"},
		"pushes in a DaemonSet":        {local + "kind: DaemonSet", "upstream ecr has acknowledge: local"},
		"pushes on a node's directory": {local + "kind: DaemonSet\npersistence: {hostPath: /d}", "upstream ecr has acknowledge: local"},
		"images on an emptyDir":        {hosted + "persistence: {enabled: false}", "upstream builds is hosted by dray"},
		"images in a DaemonSet":        {hosted + "kind: DaemonSet", "upstream builds is hosted by dray"},
		"images of several replicas":   {hosted + "replicas: 2", "replicas do not share what they host"},
		"no health":                    {"config: {admin: {health_address: ''}}", "set it to \":9090\""},
		"nobody can reach it":          {"config: {listeners: [{address: '127.0.0.1:5000'}, {address: 'localhost:5001'}]}", "has no listener that other pods can reach"},
		"a cache nowhere":              {"config: {cache: {directory: data}}", "set an absolute path"},
		"state without a disk":         {"config: {state: {directory: /state}}", "config.state.directory is /state, where no disk is mounted"},
		"a fleet without a Redis":      {"config: {fleet: {address: ':5443', secret_file: /etc/dray/secrets/s}}", "config.fleet needs a Redis"},
		"a fleet with other variables": {"extraEnv: [{name: AWS_REGION, value: eu-west-1}]\nconfig: {fleet: {address: ':5443', secret_file: /etc/dray/secrets/s}}", "config.fleet needs a Redis"},
		"too little time":              {"terminationGracePeriodSeconds: 60", "dray may need 620 seconds to stop"},
		"nodes without an address":     {"nodes: {mode: write}", "nodes.url is not set"},
		"a port of nodes":              {"hostPort: 5000", "hostPort needs kind DaemonSet"},
		"an ingress to nobody":         {"ingress: {enabled: true, hosts: [a.example.com], listener: b}", "they are: mirror"},
		"an ingress without a host":    {"ingress: {enabled: true}", "ingress.hosts is empty"},
		// The schema refuses these.
		"a word that is not there":      {"replica: 2", "replica"},
		"a word within a section":       {"service: {typ: NodePort}", "typ"},
		"another kind":                  {"kind: Deployment", "kind"},
		"a number as text":              {"replicas: two", "replicas"},
		"an image with a tag":           {"image: {repository: 'Registry/dray'}", "repository"},
		"half a digest":                 {"image: {digest: 'sha256:abc'}", "digest"},
		"no configuration":              {"config: null", "config"},
		"no listeners":                  {"config: {listeners: []}", "listeners"},
		"a listener without an address": {"config: {listeners: [{name: a}]}", "address"},
		"a time without a unit":         {"config: {limits: {shutdown_grace: '10'}}", "shutdown_grace"},
		"a size without sense":          {"persistence: {size: large}", "size"},
		"a disk for nobody":             {"persistence: {accessModes: [ReadOnlyMany]}", "accessModes"},
		"a relative directory":          {"persistence: {hostPath: data}", "hostPath"},
		"a port beyond all":             {"hostPort: 70000", "hostPort"},
		"a service port by name":        {"service: {ports: {mirror: 443}}", "invalid propertyName 'mirror'"},
		"a pause of nothing":            {"preStopSeconds: 0", "preStopSeconds"},
		"no disruptions at all":         {"podDisruptionBudget: {maxUnavailable: 0}", "maxUnavailable"},
		"a URL with a path":             {"nodes: {mode: write, url: 'https://d/hub'}", "url"},
		"a URL with a password":         {"nodes: {mode: write, url: 'https://u:p@d'}", "url"},
		"a registry with a path":        {"nodes: {registries: [quay.io/x]}", "registries"},
		"a file in place of its text":   {"nodes: {ca: /etc/ca.pem}", "ca"},
		"yes":                           {"nodes: {mode: yes}", "mode"},
		"a dashboard by its name":       {"metrics: {dashboard: dray}", "dashboard"},
		"a label without quotes":        {"metrics: {dashboard: {labels: {grafana_dashboard: 1}}}", "grafana_dashboard"},
		"a secret that is no name":      {"existingSecret: Not_A_Name", "existingSecret"},
	} {
		if out, err := onChart(t, tc.values, "template", releaseName, chartDir); err == nil || !strings.Contains(out, tc.says) {
			t.Errorf("%s: %v, want %q:\n%s", name, err, tc.says, firstLines(out, 12))
		}
	}
}

func firstLines(text string, n int) string {
	lines := strings.SplitN(text, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "\n")
}

// TestChartSchema: the schema has each value of values.yaml, and no other.
func TestChartSchema(t *testing.T) {
	type schema struct {
		Properties map[string]schema
	}
	var s schema
	if err := json.Unmarshal(read(t, filepath.Join(chartDir, "values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	var compare func(path string, s schema, v any)
	compare = func(path string, s schema, v any) {
		section, ok := v.(map[string]any)
		if !ok || len(s.Properties) == 0 || path == ".config" {
			return
		}
		for key, value := range section {
			if _, found := s.Properties[key]; !found {
				t.Errorf("the schema lacks %s.%s", path, key)
			}
			compare(path+"."+key, s.Properties[key], value)
		}
		for key := range s.Properties {
			if _, found := section[key]; !found && key != "global" { // Helm's own
				t.Errorf("values.yaml lacks %s.%s", path, key)
			}
		}
	}
	compare("", s, values)
}

// renderNotes returns the notes that Helm prints after an installation. helm template leaves them
// out, so a copy of the chart has them in an object.
func renderNotes(t *testing.T, values string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "chart")
	run(t, environment(), "cp", "-r", chartDir, dir)
	text := read(t, filepath.Join(dir, "templates/NOTES.txt"))
	write(t, filepath.Join(dir, "templates/_notes.tpl"), []byte(`{{ define "notes" }}`+string(text)+`{{ end }}`))
	write(t, filepath.Join(dir, "templates/notes.yaml"), []byte("notes: {{ include \"notes\" . | quote }}\n"))
	out, err := onChart(t, values, "template", releaseName, dir, "--namespace", "dray", "--show-only", "templates/notes.yaml")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var object struct{ Notes string }
	if err := yaml.Unmarshal([]byte(out), &object); err != nil {
		t.Fatal(err)
	}
	return object.Notes
}

// TestChartNotes compares the lines for clients in the notes with those of dray setup.
func TestChartNotes(t *testing.T) {
	for name, tc := range map[string]struct{ values, url, says string }{
		"defaults":       {"", "http://dray.dray.svc:5000", "Only pods resolve this name."},
		"another port":   {"service: {ports: {'5000': 80}}", "http://dray.dray.svc:80", "Only pods resolve this name."},
		"external":       {"config: {listeners: [{address: ':5000', external_url: 'https://dray.example.com/'}]}", "https://dray.example.com", "2. Point clients to it."},
		"ingress":        {"ingress: {enabled: true, hosts: [dray.example.com], tls: [{secretName: s}]}", "https://dray.example.com", "2. Point clients to it."},
		"nodes":          {"nodes: {mode: write, url: 'https://dray.example.com', dialTimeout: 300ms}", "https://dray.example.com", "-n dray logs daemonset/dray-nodes -c setup"},
		"a DaemonSet":    {"kind: DaemonSet\nhostPort: 5001\nnodes: {mode: write}", "http://127.0.0.1:5001", "the cache ends with each pod"},
		"nodes, undone":  {"nodes: {mode: undo, url: 'https://dray.example.com'}", "https://dray.example.com", "set\n   nodes.mode to \"off\""},
		"many, no Redis": {"replicas: 2", "http://dray.dray.svc:5000", "Set config.metadata.url"},
	} {
		t.Run(name, func(t *testing.T) {
			notes := renderNotes(t, tc.values)
			if !strings.Contains(notes, "dray is at "+tc.url+"\n") || !strings.Contains(notes, tc.says) {
				t.Errorf("the notes lack %s or %s:\n%s", tc.url, tc.says, notes)
			}
			timeout := "200ms"
			if strings.Contains(tc.values, "300ms") {
				timeout = "300ms"
			}
			for client, version := range map[string]string{"containerd": "2.1", "docker": "20.10"} {
				var printed struct {
					Files []struct{ Path, Content string }
				}
				out := run(t, environment(), "/bin/sh", "-c", `"$@" 2>/dev/null`, "sh", built.dray, "setup", client, "--url", tc.url, "--dial-timeout", timeout, "--client-version", version, "--json")
				if err := json.Unmarshal([]byte(out), &printed); err != nil || len(printed.Files) == 0 {
					t.Fatalf("%v: %s", err, out)
				}
				if file := printed.Files[0]; !strings.Contains(notes, file.Path) || !strings.Contains(notes, strings.TrimSpace(file.Content)) {
					t.Errorf("the notes lack what dray setup writes to %s:\n%s\nbut are:\n%s", file.Path, file.Content, notes)
				}
			}
		})
	}
}

// TestChartOnNodes runs what the chart runs on a node, on a directory that stands for it: at the
// installation, at a roll-out, after a change of values, and before the release is uninstalled.
func TestChartOnNodes(t *testing.T) {
	const values = "nodes: {mode: write, url: 'https://dray.example.com', registries: [docker.io, quay.io], ca: CA, containerdVersion: '2.2'}"
	dir := t.TempDir()
	makeCertificate(t, dir, drayName)
	ca, err := json.Marshal(string(read(t, filepath.Join(dir, "cert.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	c := render(t, strings.Replace(values, "CA", string(ca), 1))
	fewer := render(t, "nodes: {mode: write, url: 'https://dray.example.com', registries: [docker.io]}")
	node := filepath.Join(dir, "node")
	// The directories that Kubernetes makes for the volumes, and files of others.
	for _, volume := range []string{"etc/containerd/certs.d", "var/lib/dray-setup"} {
		if err := os.MkdirAll(filepath.Join(node, volume), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const certs = "etc/containerd/certs.d/"
	foreign := map[string]string{
		"etc/containerd/config.toml": "version = 2\n",
		certs + "ghcr.io/hosts.toml": "server = \"https://ghcr.io\"\n",
		certs + "quay.io/hosts.toml": "# ours\n[host.\"https://mirror.example.com\"]\n  capabilities = [\"pull\"]\n",
		certs + "registry.crt":       "a certificate\n",
	}
	for name, text := range foreign {
		write(t, filepath.Join(node, name), []byte(text))
	}
	before := tree(t, node)
	act := func(c *chart, key string) string {
		t.Helper()
		return run(t, environment(), c.nodeCommand(t, key, node, filepath.Join(dir, "ca"))...)
	}
	act(c, "DaemonSet/dray-nodes")
	written := tree(t, node)
	hub, quay := written[filepath.Join(node, certs, "docker.io/hosts.toml")], written[filepath.Join(node, certs, "quay.io/hosts.toml")]
	// The server is where nodes pull from while dray is away, dray's own image included.
	if !strings.Contains(hub, `[host."https://dray.example.com"]`) || !strings.Contains(hub, `server = "https://registry-1.docker.io"`) || !strings.Contains(hub, `ca = "/etc/containerd/certs.d/dray.pem"`) {
		t.Errorf("docker.io: %s", hub)
	}
	if !regexp.MustCompile(`(?s)dray\.example\.com.*mirror\.example\.com`).MatchString(quay) || !strings.Contains(quay, "# ours") {
		t.Errorf("quay.io: %s", quay)
	}
	for name, text := range foreign {
		if path := filepath.Join(node, name); !strings.Contains(name, "quay.io") && written[path] != text {
			t.Errorf("%s of somebody else has become %q", name, written[path])
		}
	}
	act(c, "DaemonSet/dray-nodes") // a roll-out
	if diff := cmp.Diff(written, tree(t, node)); diff != "" {
		t.Errorf("a roll-out changes:\n%s", diff)
	}
	act(fewer, "DaemonSet/dray-nodes")
	for path, text := range tree(t, node) {
		if strings.HasSuffix(path, "/dray.pem") || strings.Contains(path, "quay.io") && text != foreign[certs+"quay.io/hosts.toml"] && !strings.Contains(path, "before-dray") {
			t.Errorf("a registry fewer leaves %s: %s", path, text)
		}
	}
	act(c, "DaemonSet/dray-nodes-undo")
	if diff := cmp.Diff(before, tree(t, node)); diff != "" {
		t.Errorf("after the release was uninstalled (-before):\n%s", diff)
	}
	if left, err := os.ReadDir(filepath.Join(node, certs)); err != nil || len(left) != 3 {
		t.Errorf("left: %v, %v", left, err)
	}
	act(c, "DaemonSet/dray-nodes-undo") // the node had nothing to take back
	// A file that cannot be changed is left alone, and the pod of the node fails.
	link := filepath.Join(node, certs, "docker.io/hosts.toml")
	if err := os.Mkdir(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/elsewhere", link); err != nil {
		t.Fatal(err)
	}
	if out, err := try(t, environment(), c.nodeCommand(t, "DaemonSet/dray-nodes", node, filepath.Join(dir, "ca"))...); err == nil || !strings.Contains(out, "docker.io/hosts.toml is left alone: it is a symbolic link") {
		t.Errorf("%v: %s", err, out)
	}
}

// nodeCommand is the command of the init container that sets up a node, for a directory in place of
// that node. The volume with the certificate is another directory.
func (c *chart) nodeCommand(t *testing.T, key, node, ca string) []string {
	t.Helper()
	pod := part[object](t, c.want(key), "spec", "template", "spec")
	for i, mount := range []string{"/node/etc/containerd/certs.d", "/node/var/lib/dray-setup"} {
		expect(t, pod, mount, "initContainers", 0, "volumeMounts", i, "mountPath")
		expect(t, pod, strings.TrimPrefix(mount, "/node"), "volumes", i, "hostPath", "path")
	}
	if config := c.objects["ConfigMap/dray-nodes"]; config != nil {
		for name, text := range part[object](t, config, "data") {
			write(t, filepath.Join(ca, name), []byte(text.(string)))
		}
	}
	command := []string{built.dray}
	for _, arg := range part[[]any](t, pod, "initContainers", 0, "args") {
		text, _ := arg.(string)
		command = append(command, strings.NewReplacer("--root=/node", "--root="+node, "/etc/dray/nodes", ca).Replace(text))
	}
	if !slices.Contains(command, "--root="+node) {
		t.Fatalf("the node is elsewhere: %q", command)
	}
	return command
}

// TestChartValidates holds the objects of the chart to the schemas of Kubernetes, which the tool
// has in itself. It does not know those of the Prometheus operator.
func TestChartValidates(t *testing.T) {
	validate := needLarge(t, "kubectl-validate")
	for i, values := range append(documentedValues(t), "", "ingress: {enabled: true, hosts: [dray.example.com], tls: [{secretName: s}]}",
		"nodes: {mode: write, url: 'https://d', ca: '-----BEGIN CERTIFICATE-----'}\nexistingSecret: s\nextraEnv: [{name: A, value: b}]\nnetworkPolicy: {from: [{podSelector: {}}]}") {
		values = strings.NewReplacer("serviceMonitor: {enabled: true}", "serviceMonitor: {}", "prometheusRule: {enabled: true}", "prometheusRule: {}").Replace(values)
		c := render(t, values)
		out, err := try(t, environment(), validate, c.files, "--version", "1.30")
		if err != nil || !strings.Contains(out, "OK") {
			t.Errorf("values %d: %v\n%s", i, err, out)
		}
	}
	// The tool finds what it is asked for.
	c := render(t, "")
	file := filepath.Join(c.files, "objects.yaml")
	write(t, file, []byte(strings.Replace(string(read(t, file)), "serviceName:", "servicename:", 1)))
	if out, err := try(t, environment(), validate, c.files, "--version", "1.30"); err == nil {
		t.Errorf("a wrong object passes:\n%s", out)
	}
}
