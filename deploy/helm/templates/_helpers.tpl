{{- /* dray.name is the name of all objects. */ -}}
{{- define "dray.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dray.serviceAccount" -}}
{{- default (ternary (include "dray.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- /* dray.selector never changes for an object: selectors are immutable. It takes the root and a component. */ -}}
{{- define "dray.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "dray.labels" -}}
{{ include "dray.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "dray.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- ternary (printf "%s@%s" .Values.image.repository .Values.image.digest) (printf "%s:%s" .Values.image.repository $tag) (ne .Values.image.digest "") -}}
{{- end -}}

{{- /* dray.ports is JSON: for each listener that other machines can reach its name and port. */ -}}
{{- define "dray.ports" -}}
{{- $ports := list -}}
{{- range $l := .Values.config.listeners | default list -}}
  {{- $address := toString $l.address -}}
  {{- if not (regexMatch "^(localhost|127\\.|\\[::1\\])" $address) -}}
    {{- $port := regexFind "[0-9]+$" $address | int -}}
    {{- $name := toString (default (printf "port-%d" $port) $l.name) -}}
    {{- $key := ternary $name (printf "port-%d" $port) (regexMatch "^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$" $name) -}}
    {{- $ports = append $ports (dict "name" $name "key" $key "port" $port "tls" (hasKey $l "tls")) -}}
  {{- end -}}
{{- end -}}
{{- dict "ports" $ports | toJson -}}
{{- end -}}

{{- /* dray.fleetPort is the port of the listener for other members of a fleet, or nothing. */ -}}
{{- define "dray.fleetPort" -}}
{{- regexFind "[0-9]+$" (toString (dig "fleet" "address" "" .Values.config)) -}}
{{- end -}}

{{- /* dray.sets is "true" if extraEnv sets a variable. It takes the root and the name. */ -}}
{{- define "dray.sets" -}}
{{- $name := .name -}}
{{- range .root.Values.extraEnv -}}{{- if eq .name $name -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "dray.health" -}}
{{- regexFind "[0-9]+$" (toString (dig "admin" "health_address" "" .Values.config)) -}}
{{- end -}}

{{- /* dray.seconds is a duration of dray's configuration in seconds, rounded up. */ -}}
{{- define "dray.seconds" -}}
{{- $units := dict "d" 86400.0 "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(d|h|ms|m|s)" (toString .) -1 -}}
  {{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- ceil $sum | int -}}
{{- end -}}

{{- /* dray.stopSeconds is what a dray needs to stop without breaking a push. */ -}}
{{- define "dray.stopSeconds" -}}
{{- $grace := include "dray.seconds" (dig "limits" "shutdown_grace" "30s" .Values.config) | int -}}
{{- $pause := include "dray.seconds" (dig "limits" "shutdown_pause" "0s" .Values.config) | int -}}
{{- add .Values.preStopSeconds $pause $grace 15 -}}
{{- end -}}

{{- /* dray.persistent is "true" if the disk outlives pods and nodes. */ -}}
{{- define "dray.persistent" -}}
{{- and (eq .Values.kind "StatefulSet") .Values.persistence.enabled -}}
{{- end -}}

{{- /* dray.nodesURL is the URL of dray for nodes. */ -}}
{{- define "dray.nodesURL" -}}
{{- if .Values.nodes.url -}}
{{- .Values.nodes.url -}}
{{- else if and (eq .Values.kind "DaemonSet") (gt (int .Values.hostPort) 0) -}}
{{- printf "http://127.0.0.1:%d" (int .Values.hostPort) -}}
{{- end -}}
{{- end -}}

{{- /* dray.clientURL is the URL of dray for the notes. */ -}}
{{- define "dray.clientURL" -}}
{{- $first := first (include "dray.ports" . | fromJson).ports -}}
{{- if include "dray.nodesURL" . -}}
{{- include "dray.nodesURL" . -}}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{- printf "%s://%s" (ternary "https" "http" (gt (len .Values.ingress.tls) 0)) (first .Values.ingress.hosts) -}}
{{- else if dig "external_url" "" (first .Values.config.listeners) -}}
{{- (first .Values.config.listeners).external_url | trimSuffix "/" -}}
{{- else -}}
{{- printf "%s://%s.%s.svc:%v" (ternary "https" "http" $first.tls) (include "dray.name" .) .Release.Namespace (get .Values.service.ports (toString $first.port) | default $first.port) -}}
{{- end -}}
{{- end -}}

{{- /* dray.refuse ends the rendering of values that cannot work, or that would lose data. */ -}}
{{- define "dray.refuse" -}}
{{- $config := .Values.config -}}
{{- if not (include "dray.health" .) -}}
{{- fail "config.admin.health_address is not set, and the probes need it: set it to \":9090\"" -}}
{{- end -}}
{{- if not (include "dray.ports" . | fromJson).ports -}}
{{- fail "config.listeners has no listener that other pods can reach: set an address such as \":5000\"" -}}
{{- end -}}
{{- $cache := toString (dig "cache" "directory" "" $config) -}}
{{- if not (hasPrefix "/" $cache) -}}
{{- fail "config.cache.directory is where the disk is mounted: set an absolute path, such as /cache" -}}
{{- end -}}
{{- $state := toString (dig "state" "directory" $cache $config) -}}
{{- $mounted := eq $state $cache | or (hasPrefix (printf "%s/" $cache) $state) -}}
{{- range .Values.extraVolumeMounts -}}{{- $mounted = or $mounted (eq .mountPath $state) -}}{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.state.directory is %s, where no disk is mounted: leave it out, or mount a disk there with extraVolumeMounts" $state) -}}
{{- end -}}
{{- range $config.upstreams | default list -}}
  {{- if kindIs "map" . -}}
    {{- $name := default .url .name -}}
    {{- if and (eq (toString .acknowledge) "local") (ne (include "dray.persistent" $) "true") -}}
    {{- fail (printf "upstream %s has acknowledge: local, and its pushes would be lost with the pod: use kind StatefulSet with persistence.enabled, or acknowledge: upstream" $name) -}}
    {{- end -}}
    {{- if eq (toString .kind) "local" -}}
      {{- if ne (include "dray.persistent" $) "true" -}}
      {{- fail (printf "upstream %s is hosted by dray (kind: local), and its images would be lost with the pod: use kind StatefulSet with persistence.enabled" $name) -}}
      {{- end -}}
      {{- if gt (int $.Values.replicas) 1 -}}
      {{- fail (printf "upstream %s is hosted by dray (kind: local), and replicas do not share what they host: set replicas to 1" $name) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $redis := or (dig "metadata" "url" "" $config) (include "dray.sets" (dict "root" . "name" "DRAY_METADATA_URL")) .Values.extraEnvFrom -}}
{{- if and (include "dray.fleetPort" .) (not $redis) -}}
{{- fail "config.fleet needs a Redis, by which members find each other: set config.metadata.url, or DRAY_METADATA_URL with extraEnv" -}}
{{- end -}}
{{- $least := include "dray.stopSeconds" . | int -}}
{{- if and (not (kindIs "invalid" .Values.terminationGracePeriodSeconds)) (lt (int .Values.terminationGracePeriodSeconds) $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and dray may need %d seconds to stop: leave it out, or lower config.limits.shutdown_pause or shutdown_grace" (int .Values.terminationGracePeriodSeconds) $least) -}}
{{- end -}}
{{- if and (ne .Values.nodes.mode "off") (not (include "dray.nodesURL" .)) -}}
{{- fail "nodes.url is not set: give the URL by which the nodes reach dray, which is not the name of a Service, or use kind DaemonSet with hostPort" -}}
{{- end -}}
{{- if and (gt (int .Values.hostPort) 0) (ne .Values.kind "DaemonSet") -}}
{{- fail "hostPort needs kind DaemonSet" -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
  {{- $names := list -}}
  {{- range (include "dray.ports" . | fromJson).ports -}}{{- $names = append $names .name -}}{{- end -}}
  {{- if and .Values.ingress.listener (not (has .Values.ingress.listener $names)) -}}
  {{- fail (printf "ingress.listener %s is not a listener that other pods can reach; they are: %s" .Values.ingress.listener (join ", " $names)) -}}
  {{- end -}}
  {{- if not .Values.ingress.hosts -}}{{- fail "ingress.hosts is empty: name a host" -}}{{- end -}}
{{- end -}}
{{- end -}}
