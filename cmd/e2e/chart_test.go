package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const (
	chartDir    = "../../deploy/helm"
	kubeVersion = "1.33.0"
	releaseName = "dray"
)

// chart is what Helm makes of the chart and some values.
type chart struct {
	t       testing.TB
	objects map[string]object // by kind/name
	files   string            // directory with the objects as Helm prints them
}

// object is a Kubernetes object, or a part of one.
type object map[string]any

// part returns a part of an object. Names of fields and indexes of lists lead there.
func part[T any](t testing.TB, o any, path ...any) T {
	t.Helper()
	for _, step := range path {
		switch key := step.(type) {
		case string:
			switch m := o.(type) {
			case object:
				o = m[key]
			case map[string]any:
				o = m[key]
			default:
				o = nil
			}
		case int:
			list, _ := o.([]any)
			if o = nil; key < len(list) {
				o = list[key]
			}
		}
	}
	if m, ok := o.(map[string]any); ok {
		if converted, ok := any(object(m)).(T); ok {
			return converted
		}
	}
	value, _ := o.(T)
	return value
}

// onChart runs Helm on the chart with values in YAML.
func onChart(t testing.TB, values string, args ...string) (string, error) {
	t.Helper()
	dir := shortDir(t) // Helm takes a comma for the end of a name
	file := filepath.Join(dir, "values.yaml")
	write(t, file, []byte(values))
	env := environment("HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG="+filepath.Join(dir, "none"))
	return try(t, env, slices.Concat([]string{need(t, "helm")}, args, []string{"--values", file, "--kube-version", kubeVersion})...)
}

// render renders the chart, and reads its objects.
func render(t testing.TB, values string) *chart {
	t.Helper()
	out, err := onChart(t, values, "template", releaseName, chartDir, "--namespace", "dray")
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	c := &chart{t: t, objects: map[string]object{}, files: t.TempDir()}
	write(t, filepath.Join(c.files, "objects.yaml"), []byte(out))
	decoder := yaml.NewDecoder(strings.NewReader(out))
	for {
		var o object
		if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
			return c
		} else if err != nil {
			t.Fatalf("what Helm prints is not YAML: %v\n%s", err, out)
		}
		if o == nil {
			continue
		}
		key := part[string](t, o, "kind") + "/" + part[string](t, o, "metadata", "name")
		if c.objects[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		c.objects[key] = o
	}
}

// want returns an object that must be there.
func (c *chart) want(key string) object {
	c.t.Helper()
	o := c.objects[key]
	if o == nil {
		c.t.Fatalf("no %s; there are %v", key, slices.Sorted(maps.Keys(c.objects)))
	}
	return o
}

// workload is the object that runs dray.
func (c *chart) workload() object {
	for _, kind := range []string{"StatefulSet/dray", "DaemonSet/dray"} {
		if o := c.objects[kind]; o != nil {
			return o
		}
	}
	c.t.Fatal("nothing runs dray")
	return nil
}

// podIP is what Kubernetes would put in the place of $(POD_IP).
const podIP = "127.0.0.7"

// effective checks the configuration as dray would, and returns it with all defaults. Files that it
// names are made.
func (c *chart) effective() object {
	c.t.Helper()
	dir := c.t.TempDir()
	for _, sub := range []string{"secrets", "tls"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
	makeCertificate(c.t, dir, drayName)
	for from, to := range map[string]string{"cert.pem": "tls/tls.crt", "privkey.pem": "tls/tls.key"} {
		write(c.t, filepath.Join(dir, to), read(c.t, filepath.Join(dir, from)))
	}
	write(c.t, filepath.Join(dir, "secrets/htpasswd"), []byte("ci:$2a$04$PPvBFbeANsYCuTbUjj4ZTOdHTFXhbXdhRVbfs6Yh9rpRsDzyNr3eW\n"))
	write(c.t, filepath.Join(dir, "secrets/redis-password"), []byte("secret\n"))
	write(c.t, filepath.Join(dir, "secrets/fleet-secret"), []byte(strings.Repeat("secret ", 6)))
	text := part[string](c.t, c.want("ConfigMap/dray"), "data", "dray.yaml")
	file := filepath.Join(dir, "dray.yaml")
	write(c.t, file, []byte(strings.ReplaceAll(text, "/etc/dray/", dir+"/")))
	// The variables of the container, and those of its image, go before the file.
	env := []string{"DRAY_CONFIG=" + file}
	for _, v := range part[[]any](c.t, c.workload(), "spec", "template", "spec", "containers", 0, "env") {
		if name := part[string](c.t, v, "name"); name != "DRAY_CONFIG" {
			env = append(env, name+"="+strings.ReplaceAll(part[string](c.t, v, "value"), "$(POD_IP)", podIP))
		}
	}
	out, err := try(c.t, environment(env...), built.dray, "check")
	if err != nil {
		c.t.Fatalf("dray check: %v\n%s\n%s", err, out, text)
	}
	var effective object
	decodeChecked(c.t, out, &effective)
	return effective
}

// decodeChecked decodes the configuration that dray check prints after its notices.
func decodeChecked(t testing.TB, out string, configuration any) {
	t.Helper()
	if i := strings.Index(out, "\nlisteners:"); i >= 0 {
		out = out[i:]
	}
	if err := yaml.Unmarshal([]byte(out), configuration); err != nil {
		t.Fatalf("dray check prints: %v\n%s", err, out)
	}
}

// TestChart renders the chart with values for each of its parts, and with those of
// docs/kubernetes.md. Each has the objects that are named here, and passes judge.
func TestChart(t *testing.T) {
	mirror := []string{"ConfigMap/dray", "NetworkPolicy/dray", "PodDisruptionBudget/dray", "Service/dray", "Service/dray-pods", "ServiceAccount/dray", "StatefulSet/dray"}
	undo := []string{"DaemonSet/dray-nodes-undo", "Job/dray-nodes-undo", "Role/dray-nodes-undo", "RoleBinding/dray-nodes-undo", "ServiceAccount/dray-nodes-undo"}
	cases := map[string]struct {
		values     string
		more       []string // objects besides those of a mirror
		fewer      []string
		particular func(t *testing.T, c *chart)
	}{
		"defaults":  {"", nil, nil, checkDefaults},
		"monitored": {"metrics: {serviceMonitor: {enabled: true, labels: {team: a}, interval: 1m}, prometheusRule: {enabled: true, labels: {team: b}}, dashboard: {enabled: true, labels: {team: c}}}", []string{"ServiceMonitor/dray", "PrometheusRule/dray", "ConfigMap/dray-dashboard"}, nil, checkMonitored},
		"nothing more than needed": {"serviceAccount: {create: false, name: own}\nnetworkPolicy: {enabled: false}\npodDisruptionBudget: {enabled: false}", nil,
			[]string{"NetworkPolicy/dray", "PodDisruptionBudget/dray", "ServiceAccount/dray"}, func(t *testing.T, c *chart) {
				expect(t, c.pod(), "own", "serviceAccountName")
			}},
		"ingress": {"ingress: {enabled: true, className: nginx, hosts: [dray.example.com, b.example.com], listener: second, annotations: {a: b}, tls: [{secretName: s, hosts: [dray.example.com]}]}\n" +
			"config: {listeners: [{address: ':5000'}, {name: second, address: '0.0.0.0:5001'}, {address: '127.0.0.1:5002'}]}", []string{"Ingress/dray"}, nil, checkIngress},
		"placed": {"nodeSelector: {a: b}\ntolerations: [{operator: Exists}]\naffinity: {nodeAffinity: {}}\npriorityClassName: p\ntopologySpreadConstraints: [{maxSkew: 2, topologyKey: k, whenUnsatisfiable: DoNotSchedule}]\n" +
			"podLabels: {c: d}\npodAnnotations: {e: f}\nimagePullSecrets: [{name: pull}]\nresources: {limits: {memory: 4Gi}}", nil, nil, checkPlaced},
		"more of everything": {"existingSecret: s\ntls: {existingSecret: t}\nextraEnv: [{name: AWS_REGION, value: eu-west-1}]\nextraEnvFrom: [{secretRef: {name: e}}]\nextraVolumes: [{name: state, emptyDir: {}}]\n" +
			"extraVolumeMounts: [{name: state, mountPath: /state}]\nconfig: {state: {directory: /state}, limits: {max_connections: 2000000}}", nil, nil, checkMore},
		"image by digest": {"image: {repository: registry.example.com/dray, tag: '1.2.3', digest: 'sha256:" + strings.Repeat("a", 64) + "', pullPolicy: Always}", nil, nil, func(t *testing.T, c *chart) {
			expect(t, c.pod(), "registry.example.com/dray@sha256:"+strings.Repeat("a", 64), "containers", 0, "image")
		}},
		"no disk": {"persistence: {enabled: false, size: 7Gi}", nil, nil, func(t *testing.T, c *chart) {
			expect(t, c.volume("cache"), "7Gi", "emptyDir", "sizeLimit")
			expect(t, c.workload(), nil, "spec", "volumeClaimTemplates")
		}},
		"a disk of a class": {"persistence: {size: 1Ti, storageClass: fast, accessModes: [ReadWriteOncePod], retain: false}", nil, nil, func(t *testing.T, c *chart) {
			claim := part[object](t, c.workload(), "spec", "volumeClaimTemplates", 0, "spec")
			expect(t, claim, "fast", "storageClassName")
			expect(t, claim, "1Ti", "resources", "requests", "storage")
			expect(t, claim, "ReadWriteOncePod", "accessModes", 0)
			expect(t, c.workload(), "Delete", "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")
		}},
		"hosted repositories": {"config: {upstreams: [docker.io, {name: builds, kind: local, prefixes: [builds], local: {max_bytes: 10GiB}}]}", nil, nil, nil},
		"pushes acknowledged early, several replicas": {"replicas: 2\nconfig: {listeners: [{address: ':5000', upstreams: [ecr]}], upstreams: [{name: ecr, url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, push: true, acknowledge: local}]}", nil, nil,
			func(t *testing.T, c *chart) { expect(t, c.want("Service/dray"), "ClientIP", "spec", "sessionAffinity") }},
		"a fleet that takes pushes": {"replicas: 3\nconfig: {listeners: [{address: ':5000', upstreams: [ecr]}], upstreams: [{name: ecr, url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, push: true}],\n" +
			"  metadata: {url: 'redis://redis:6379'}, fleet: {address: ':5443', secret_file: /etc/dray/secrets/fleet-secret}}\nexistingSecret: s", nil, nil, checkFleet},
		"a fleet with addresses of its own": {"config: {metadata: {url: 'redis://redis:6379'}, fleet: {address: ':5443', advertise: 'dray.example.com:5443', secret_file: /etc/dray/secrets/fleet-secret}}\nexistingSecret: s", nil, nil,
			func(t *testing.T, c *chart) {
				expect(t, c.effective(), "dray.example.com:5443", "fleet", "advertise")
			}},
		"a fleet with variables": {"config: {fleet: {address: ':5443', secret_file: /etc/dray/secrets/fleet-secret}}\nexistingSecret: s\n" +
			"extraEnv: [{name: DRAY_METADATA_URL, value: 'redis://redis:6379'}, {name: DRAY_FLEET_ADVERTISE, value: '[$(POD_IP)]:5443'}]", nil, nil, checkVariables},
		"service of nodes": {"service: {type: NodePort, externalTrafficPolicy: Local, loadBalancerClass: '', clusterIP: '', sessionAffinity: ClientIP, annotations: {a: b}, loadBalancerSourceRanges: [192.0.2.0/24]}", nil, nil, func(t *testing.T, c *chart) {
			s := c.want("Service/dray")
			expect(t, s, "NodePort", "spec", "type")
			expect(t, s, "Local", "spec", "externalTrafficPolicy")
			expect(t, s, "ClientIP", "spec", "sessionAffinity")
			expect(t, s, "192.0.2.0/24", "spec", "loadBalancerSourceRanges", 0)
			expect(t, s, "b", "metadata", "annotations", "a")
		}},
		"who may connect": {"networkPolicy: {from: [{ipBlock: {cidr: 192.0.2.0/24}}], monitoringFrom: [{namespaceSelector: {matchLabels: {a: b}}}]}", nil, nil, func(t *testing.T, c *chart) {
			rules := part[[]any](t, c.want("NetworkPolicy/dray"), "spec", "ingress")
			expect(t, rules, "192.0.2.0/24", 0, "from", 0, "ipBlock", "cidr")
			expect(t, rules, 5000, 0, "ports", 0, "port")
			expect(t, rules, "b", 1, "from", 0, "namespaceSelector", "matchLabels", "a")
			expect(t, rules, 9090, 1, "ports", 0, "port")
		}},
		"a long stop": {"preStopSeconds: 20\nconfig: {limits: {shutdown_grace: 1h30m0.5s}}", nil, nil, func(t *testing.T, c *chart) {
			expect(t, c.pod(), 20+5401+15, "terminationGracePeriodSeconds")
			expect(t, c.pod(), 20, "containers", 0, "lifecycle", "preStop", "sleep", "seconds")
		}},
		"a longer stop": {"terminationGracePeriodSeconds: 4000\npodDisruptionBudget: {maxUnavailable: 50%}", nil, nil, func(t *testing.T, c *chart) {
			expect(t, c.pod(), 4000, "terminationGracePeriodSeconds")
			expect(t, c.want("PodDisruptionBudget/dray"), "50%", "spec", "maxUnavailable")
		}},
		"nodes": {"nodes: {mode: write, url: 'https://dray.example.com', registries: [docker.io, quay.io=q], ca: '-----BEGIN CERTIFICATE-----', containerdVersion: '2.2', dialTimeout: 300ms, nodeSelector: {pool: main}, tolerations: [], undoTimeout: 2m}",
			append(undo, "DaemonSet/dray-nodes", "ConfigMap/dray-nodes"), nil, checkNodes},
		"nodes that are given back": {"nodes: {mode: undo, url: 'https://dray.example.com'}", []string{"DaemonSet/dray-nodes"}, nil, func(t *testing.T, c *chart) {
			expect(t, c.want("DaemonSet/dray-nodes"), "--undo", "spec", "template", "spec", "initContainers", 0, "args", 3)
		}},
		"another name": {"nameOverride: other", nil, mirror, func(t *testing.T, c *chart) {
			c.want("StatefulSet/dray-other")
			expect(t, c.want("Service/dray-other"), "other", "spec", "selector", "app.kubernetes.io/name")
		}},
		"another whole name": {"fullnameOverride: whole", nil, mirror, func(t *testing.T, c *chart) { c.want("StatefulSet/whole") }},
	}
	for i, values := range documentedValues(t) {
		entry := cases["defaults"]
		entry.values, entry.particular = values, nil
		if strings.Contains(values, "nodes:") {
			entry.more = append(entry.more, append(undo, "DaemonSet/dray-nodes")...)
		}
		if strings.Contains(values, "metrics:") {
			entry.more = append(entry.more, "ServiceMonitor/dray", "PrometheusRule/dray", "ConfigMap/dray-dashboard")
		}
		if strings.Contains(values, "kind: DaemonSet") {
			entry.more, entry.fewer = append(entry.more, "DaemonSet/dray"), []string{"StatefulSet/dray", "PodDisruptionBudget/dray"}
			entry.particular = checkDaemonSet
		}
		cases[fmt.Sprintf("example %d", i+1)] = entry
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := render(t, tc.values)
			if tc.particular != nil {
				tc.particular(t, c)
			}
			if slices.Equal(tc.fewer, mirror) {
				return // its objects have other names
			}
			wanted := slices.DeleteFunc(slices.Concat(mirror, tc.more), func(key string) bool { return slices.Contains(tc.fewer, key) })
			slices.Sort(wanted)
			if diff := cmp.Diff(wanted, slices.Sorted(maps.Keys(c.objects))); diff != "" {
				t.Errorf("objects (-wanted):\n%s", diff)
			}
			judge(t, c)
			if out, err := onChart(t, tc.values, "lint", "--strict", chartDir); err != nil {
				t.Errorf("helm lint: %v\n%s", err, out)
			}
		})
	}
}

// documentedValues are the examples of docs/kubernetes.md.
func documentedValues(t testing.TB) (all []string) {
	t.Helper()
	for _, block := range strings.Split(string(read(t, "../../docs/kubernetes.md")), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		all = append(all, text)
	}
	if len(all) < 4 {
		t.Fatalf("docs/kubernetes.md has %d examples", len(all))
	}
	return all
}

// pod is the template of the pods that run dray.
func (c *chart) pod() object { return part[object](c.t, c.workload(), "spec", "template", "spec") }

// volume is a volume of these pods.
func (c *chart) volume(name string) object {
	for _, v := range part[[]any](c.t, c.pod(), "volumes") {
		if part[string](c.t, v, "name") == name {
			return part[object](c.t, v)
		}
	}
	c.t.Errorf("no volume %s", name)
	return nil
}

// expect compares a part of an object.
func expect(t testing.TB, o, want any, path ...any) {
	t.Helper()
	if got := part[any](t, o, path...); !cmp.Equal(got, want) {
		t.Errorf("%v is %v, want %v", path, got, want)
	}
}

func checkDefaults(t *testing.T, c *chart) {
	published := bytes.Fields(bytes.SplitN(read(t, "../../Makefile"), []byte("PUBLISHED     ?= "), 2)[1])[0]
	expect(t, c.pod(), string(published)+"/dray:latest", "containers", 0, "image")
	expect(t, c.pod(), 65532, "securityContext", "fsGroup")
	expect(t, c.pod(), true, "securityContext", "runAsNonRoot")
	expect(t, c.pod(), "topology.kubernetes.io/zone", "topologySpreadConstraints", 0, "topologyKey")
	expect(t, c.workload(), "100Gi", "spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage")
	expect(t, c.want("Service/dray"), "None", "spec", "sessionAffinity")
	changed := render(t, "config: {log: {level: debug}}")
	sum := []any{"spec", "template", "metadata", "annotations", "checksum/config"}
	if one := part[string](t, c.workload(), sum...); one == "" || one == part[string](t, changed.workload(), sum...) || one != part[string](t, render(t, "").workload(), sum...) {
		t.Error("the pods do not restart exactly when the configuration changes")
	}
}

// checkVariables: extraEnv says by which Redis and at which address members find each other. No
// variable is there twice, and the address of the pod comes first.
func checkVariables(t *testing.T, c *chart) {
	expect(t, c.effective(), "["+podIP+"]:5443", "fleet", "advertise")
	var names []string
	for _, v := range part[[]any](t, c.pod(), "containers", 0, "env") {
		names = append(names, part[string](t, v, "name"))
	}
	if want := []string{"DRAY_CONFIG", "DRAY_CACHE_DIRECTORY", "POD_IP", "DRAY_METADATA_URL", "DRAY_FLEET_ADVERTISE"}; !slices.Equal(names, want) {
		t.Errorf("the variables are %q, want %q", names, want)
	}
}

// checkFleet: pushes need no affinity, each pod has an address of its own, and the pods alone reach
// each other.
func checkFleet(t *testing.T, c *chart) {
	expect(t, c.want("Service/dray"), "None", "spec", "sessionAffinity")
	effective := c.effective()
	expect(t, effective, podIP+":5443", "fleet", "advertise")
	expect(t, effective, ":5443", "fleet", "address")
	for _, p := range part[[]any](t, c.pod(), "containers", 0, "ports") {
		if part[string](t, p, "name") == "fleet" {
			expect(t, p, 5443, "containerPort")
		}
	}
	for _, v := range part[[]any](t, c.pod(), "containers", 0, "env") {
		if part[string](t, v, "name") == "POD_IP" {
			expect(t, v, "status.podIP", "valueFrom", "fieldRef", "fieldPath")
		}
	}
	rules := part[[]any](t, c.want("NetworkPolicy/dray"), "spec", "ingress")
	expect(t, rules, 5443, 1, "ports", 0, "port")
	expect(t, rules, "mirror", 1, "from", 0, "podSelector", "matchLabels", "app.kubernetes.io/component")
	for _, p := range part[[]any](t, c.want("Service/dray"), "spec", "ports") {
		if part[int](t, p, "port") == 5443 {
			t.Error("clients can reach the port of the members")
		}
	}
}

func checkMonitored(t *testing.T, c *chart) {
	monitor, pods := c.want("ServiceMonitor/dray"), c.want("Service/dray-pods")
	for label, value := range part[object](t, monitor, "spec", "selector", "matchLabels") {
		expect(t, pods, value, "metadata", "labels", label)
		if label == "app.kubernetes.io/component" {
			expect(t, c.want("Service/dray"), "mirror", "metadata", "labels", label) // is not watched twice
		}
	}
	expect(t, monitor, "a", "metadata", "labels", "team")
	expect(t, monitor, "health", "spec", "endpoints", 0, "port")
	expect(t, monitor, "1m", "spec", "endpoints", 0, "interval")
	rule := c.want("PrometheusRule/dray")
	expect(t, rule, "b", "metadata", "labels", "team")
	var file object
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(file, part[object](t, rule, "spec")); diff != "" || len(file) == 0 {
		t.Errorf("rules.yaml and the rule:\n%s", diff)
	}
	board := c.want("ConfigMap/dray-dashboard")
	expect(t, board, "1", "metadata", "labels", "grafana_dashboard") // the sidecar of Grafana's chart looks for it
	expect(t, board, "c", "metadata", "labels", "team")
	expect(t, board, string(read(t, filepath.Join(chartDir, "dashboard.json"))), "data", "dray.json")
}

func checkIngress(t *testing.T, c *chart) {
	ingress := c.want("Ingress/dray")
	expect(t, ingress, "nginx", "spec", "ingressClassName")
	expect(t, ingress, "b", "metadata", "annotations", "a")
	expect(t, ingress, "s", "spec", "tls", 0, "secretName")
	for i, host := range []string{"dray.example.com", "b.example.com"} {
		rule := part[object](t, ingress, "spec", "rules", i)
		expect(t, rule, host, "host")
		expect(t, rule, "second", "http", "paths", 0, "backend", "service", "port", "name")
		expect(t, rule, "dray", "http", "paths", 0, "backend", "service", "name")
	}
	expect(t, c.want("Service/dray"), "port-5000", "spec", "ports", 0, "name")
}

func checkPlaced(t *testing.T, c *chart) {
	expect(t, c.pod(), "b", "nodeSelector", "a")
	expect(t, c.pod(), "Exists", "tolerations", 0, "operator")
	expect(t, c.pod(), "p", "priorityClassName")
	expect(t, c.pod(), "k", "topologySpreadConstraints", 0, "topologyKey")
	expect(t, c.pod(), "pull", "imagePullSecrets", 0, "name")
	expect(t, c.pod(), "4Gi", "containers", 0, "resources", "limits", "memory")
	expect(t, c.workload(), "d", "spec", "template", "metadata", "labels", "c")
	expect(t, c.workload(), "f", "spec", "template", "metadata", "annotations", "e")
	if part[object](t, c.pod(), "affinity", "nodeAffinity") == nil {
		t.Error("no affinity")
	}
}

func checkMore(t *testing.T, c *chart) {
	expect(t, c.volume("secrets"), "s", "secret", "secretName")
	expect(t, c.volume("tls"), "t", "secret", "secretName")
	container := part[object](t, c.pod(), "containers", 0)
	expect(t, container, "e", "envFrom", 0, "secretRef", "name")
	expect(t, container, "AWS_REGION", "env", 2, "name")
	expect(t, c.effective(), "/state", "state", "directory")
	expect(t, c.effective(), 2000000, "limits", "max_connections")
	mounted := map[string]string{}
	for _, m := range part[[]any](t, container, "volumeMounts") {
		mounted[part[string](t, m, "name")] = part[string](t, m, "mountPath")
	}
	want := map[string]string{"config": "/etc/dray/config", "secrets": "/etc/dray/secrets", "tls": "/etc/dray/tls", "cache": "/cache", "tmp": "/tmp", "state": "/state"}
	if diff := cmp.Diff(want, mounted); diff != "" {
		t.Errorf("mounted:\n%s", diff)
	}
}

func checkDaemonSet(t *testing.T, c *chart) {
	expect(t, c.pod(), 5000, "containers", 0, "ports", 0, "hostPort")
	expect(t, c.pod(), "127.0.0.1", "containers", 0, "ports", 0, "hostIP")
	expect(t, c.volume("cache"), "/var/lib/dray-cache", "hostPath", "path")
	expect(t, c.want("Service/dray"), "Local", "spec", "internalTrafficPolicy")
	if args := part[[]any](t, c.want("DaemonSet/dray-nodes"), "spec", "template", "spec", "initContainers", 0, "args"); !slices.Contains(args, any("--url=http://127.0.0.1:5000")) {
		t.Errorf("nodes use %v", args)
	}
}

func checkNodes(t *testing.T, c *chart) {
	expect(t, c.want("ConfigMap/dray-nodes"), "-----BEGIN CERTIFICATE-----\n", "data", "ca.pem")
	for _, key := range []string{"DaemonSet/dray-nodes", "DaemonSet/dray-nodes-undo"} {
		pod := part[object](t, c.want(key), "spec", "template", "spec")
		expect(t, pod, "main", "nodeSelector", "pool")
		expect(t, pod, nil, "tolerations")
		expect(t, pod, []any{"setup", "nodes", "--hold"}, "containers", 0, "args")
	}
	// Objects of a hook are made in the order of their weights: rights, DaemonSet, what waits for it.
	for key, weight := range map[string]string{"ServiceAccount": "0", "Role": "0", "RoleBinding": "0", "DaemonSet": "1", "Job": "2"} {
		o := c.want(key + "/dray-nodes-undo")
		expect(t, o, "pre-delete", "metadata", "annotations", "helm.sh/hook")
		expect(t, o, weight, "metadata", "annotations", "helm.sh/hook-weight")
	}
	expect(t, c.want("DaemonSet/dray-nodes"), nil, "metadata", "annotations", "helm.sh/hook")
	job := part[object](t, c.want("Job/dray-nodes-undo"), "spec", "template", "spec")
	expect(t, job, []any{"setup", "nodes", "dray-nodes-undo", "--timeout=2m"}, "containers", 0, "args")
	expect(t, job, "dray-nodes-undo", "serviceAccountName")
	role := part[object](t, c.want("Role/dray-nodes-undo"), "rules", 0)
	expect(t, role, []any{"dray-nodes-undo"}, "resourceNames")
	expect(t, role, []any{"get"}, "verbs")
}
