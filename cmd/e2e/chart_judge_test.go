package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// judge holds what the chart makes of any values to what is true of all of it.
func judge(t *testing.T, c *chart) {
	t.Helper()
	effective := c.effective()
	for key, o := range c.objects {
		labels := part[object](t, o, "metadata", "labels")
		for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
			if labels[label] == nil {
				t.Errorf("%s has no label %s", key, label)
			}
		}
		template := part[object](t, o, "spec", "template")
		if template == nil {
			continue
		}
		judgePod(t, key, part[object](t, template, "spec"))
		for label, value := range part[object](t, o, "spec", "selector", "matchLabels") {
			expect(t, template, value, "metadata", "labels", label)
			if label == "helm.sh/chart" || label == "app.kubernetes.io/version" {
				t.Errorf("%s selects by %s, which changes with versions", key, label)
			}
		}
		for other, o := range c.objects { // no two select the same pods
			if kind, _, _ := strings.Cut(other, "/"); other != key && (kind == "DaemonSet" || kind == "StatefulSet") &&
				cmp.Equal(part[object](t, o, "spec", "selector"), part[object](t, c.objects[key], "spec", "selector")) {
				t.Errorf("%s and %s select the same pods", key, other)
			}
		}
	}
	pod := c.pod()
	grace, err := time.ParseDuration(part[string](t, effective, "limits", "shutdown_grace"))
	if err != nil {
		t.Fatal(err)
	}
	stop := time.Duration(part[int](t, pod, "terminationGracePeriodSeconds")) * time.Second
	if pause := time.Duration(part[int](t, pod, "containers", 0, "lifecycle", "preStop", "sleep", "seconds")) * time.Second; pause == 0 || stop < pause+grace+5*time.Second {
		t.Errorf("%s to stop, of which %s before the signal, and %s of grace", stop, pause, grace)
	}
	judgePorts(t, c, effective)
	directory := part[string](t, effective, "cache", "directory")
	if !slices.ContainsFunc(part[[]any](t, pod, "containers", 0, "volumeMounts"), func(m any) bool {
		return part[string](t, m, "mountPath") == directory && part[string](t, m, "name") == "cache"
	}) {
		t.Errorf("no disk is mounted at %s", directory)
	}
}

// judgePorts: each listener that others can reach has a port of the container and of the service,
// and the probes and the monitor find health.
func judgePorts(t *testing.T, c *chart, effective object) {
	t.Helper()
	var want []int
	for _, l := range part[[]any](t, effective, "listeners") {
		address := part[string](t, l, "address")
		var port int
		if _, err := fmt.Sscanf(address[strings.LastIndex(address, ":"):], ":%d", &port); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(address, "127.") {
			want = append(want, port)
		}
	}
	names := map[string]int{}
	var open []int
	for _, p := range part[[]any](t, c.pod(), "containers", 0, "ports") {
		name, port := part[string](t, p, "name"), part[int](t, p, "containerPort")
		names[name] = port
		if name != "health" && name != "fleet" {
			open = append(open, port)
		}
	}
	if diff := cmp.Diff(want, open); diff != "" {
		t.Errorf("ports of listeners and of the container:\n%s", diff)
	}
	if health := part[string](t, effective, "admin", "health_address"); health != fmt.Sprintf(":%d", names["health"]) {
		t.Errorf("health is at %s and port %d", health, names["health"])
	}
	for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		expect(t, c.pod(), "health", "containers", 0, probe, "httpGet", "port")
	}
	expect(t, c.pod(), "/healthz", "containers", 0, "livenessProbe", "httpGet", "path")
	expect(t, c.pod(), "/readyz", "containers", 0, "readinessProbe", "httpGet", "path")
	var served []int
	for _, p := range part[[]any](t, c.want("Service/dray"), "spec", "ports") {
		served = append(served, names[part[string](t, p, "targetPort")])
	}
	if diff := cmp.Diff(want, served); diff != "" {
		t.Errorf("ports of listeners and of the service:\n%s", diff)
	}
	expect(t, c.want("Service/dray-pods"), "health", "spec", "ports", 0, "targetPort")
	if part[string](t, c.workload(), "kind") == "StatefulSet" {
		expect(t, c.workload(), "dray-pods", "spec", "serviceName")
	}
}

// judgePod holds a pod to the pod security standard "restricted", but for the init containers that
// write files of the node.
func judgePod(t *testing.T, key string, pod object) {
	t.Helper()
	expect(t, pod, "RuntimeDefault", "securityContext", "seccompProfile", "type")
	if part[bool](t, pod, "automountServiceAccountToken") != strings.HasPrefix(key, "Job/") {
		t.Errorf("%s has the token of its service account, or lacks it", key)
	}
	for _, dangerous := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		expect(t, pod, nil, dangerous)
	}
	volumes := map[string]bool{}
	for _, v := range part[[]any](t, pod, "volumes") {
		volumes[part[string](t, v, "name")] = true
	}
	init := part[[]any](t, pod, "initContainers")
	for i, container := range slices.Concat(init, part[[]any](t, pod, "containers")) {
		name := key + " " + part[string](t, container, "name")
		context := part[object](t, container, "securityContext")
		for field, value := range map[string]any{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true} {
			expect(t, context, value, field)
		}
		expect(t, context, []any{"ALL"}, "capabilities", "drop")
		user, ok := context["runAsUser"].(int)
		if root := ok && user == 0; root != (i < len(init)) || !ok && part[int](t, pod, "securityContext", "runAsUser") != 65532 {
			t.Errorf("%s runs as user %v", name, context["runAsUser"])
		}
		if part[object](t, container, "resources", "limits")["memory"] == nil {
			t.Errorf("%s has no limit of memory", name)
		}
		for _, m := range part[[]any](t, container, "volumeMounts") {
			if v := part[string](t, m, "name"); !volumes[v] && v != "cache" {
				t.Errorf("%s mounts %s, and there is no such volume", name, v)
			}
		}
	}
}
