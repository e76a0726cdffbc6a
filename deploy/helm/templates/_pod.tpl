{{- /* dray.pod is the template of the pods that run dray. */ -}}
{{- define "dray.pod" -}}
{{- $ports := (include "dray.ports" . | fromJson).ports -}}
metadata:
  labels:
    {{- include "dray.labels" (dict "root" . "component" "mirror") | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ toYaml .Values.config | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "dray.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "StatefulSet" }}
  topologySpreadConstraints:
    {{- with .Values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "dray.selector" (dict "root" . "component" "mirror") | nindent 10 }}
    {{- end }}
  {{- end }}
  terminationGracePeriodSeconds: {{ default (include "dray.stopSeconds" . | int) .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: dray
      image: {{ include "dray.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        - name: DRAY_CONFIG
          value: /etc/dray/config/dray.yaml
        # The image sets this variable, which would go before the configuration.
        - name: DRAY_CACHE_DIRECTORY
          value: {{ .Values.config.cache.directory | quote }}
        {{- if and (include "dray.fleetPort" .) (not (dig "fleet" "advertise" "" .Values.config)) }}
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        {{- if not (include "dray.sets" (dict "root" . "name" "DRAY_FLEET_ADVERTISE")) }}
        - name: DRAY_FLEET_ADVERTISE
          value: "$(POD_IP):{{ include "dray.fleetPort" . }}"
        {{- end }}
        {{- end }}
        {{- with .Values.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with .Values.extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $i, $p := $ports }}
        - name: {{ $p.key }}
          containerPort: {{ $p.port }}
          {{- if and (eq $i 0) (gt (int $.Values.hostPort) 0) }}
          hostPort: {{ $.Values.hostPort }}
          hostIP: 127.0.0.1
          {{- end }}
        {{- end }}
        {{- with include "dray.fleetPort" . }}
        - name: fleet
          containerPort: {{ . }}
        {{- end }}
        - name: health
          containerPort: {{ include "dray.health" . }}
      # A start reads the index of the disk first, which takes a while if the disk has millions of blobs.
      startupProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 2
        failureThreshold: 300
      livenessProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        periodSeconds: 5
        timeoutSeconds: 5
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSeconds }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: config
          mountPath: /etc/dray/config
          readOnly: true
        {{- if .Values.existingSecret }}
        - name: secrets
          mountPath: /etc/dray/secrets
          readOnly: true
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - name: tls
          mountPath: /etc/dray/tls
          readOnly: true
        {{- end }}
        - name: cache
          mountPath: {{ .Values.config.cache.directory }}
        - name: tmp
          mountPath: /tmp
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "dray.name" . }}
    {{- with .Values.existingSecret }}
    - name: secrets
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if ne (include "dray.persistent" .) "true" }}
    - name: cache
      {{- if and (eq .Values.kind "DaemonSet") .Values.persistence.hostPath }}
      hostPath:
        path: {{ .Values.persistence.hostPath }}
        type: Directory
      {{- else }}
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
      {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}
