{{- /* dray.nodes is the specification of a DaemonSet that runs dray setup on all nodes. It takes the
root, a component and an action: write or undo. */ -}}
{{- define "dray.nodes" -}}
{{- $nodes := .root.Values.nodes -}}
selector:
  matchLabels: {{- include "dray.selector" . | nindent 4 }}
updateStrategy:
  rollingUpdate:
    maxUnavailable: 10%
template:
  metadata:
    labels: {{- include "dray.labels" . | nindent 6 }}
    {{- if eq .action "write" }}
    annotations:
      checksum/ca: {{ $nodes.ca | sha256sum }}
    {{- end }}
  spec:
    serviceAccountName: {{ include "dray.serviceAccount" .root }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with .root.Values.imagePullSecrets }}
    imagePullSecrets: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $nodes.nodeSelector }}
    nodeSelector: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $nodes.tolerations }}
    tolerations: {{- toYaml . | nindent 6 }}
    {{- end }}
    terminationGracePeriodSeconds: 5
    securityContext:
      seccompProfile:
        type: RuntimeDefault
    # A pod is ready when its node is done.
    initContainers:
      - name: setup
        image: {{ include "dray.image" .root }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        args:
          - setup
          - containerd
          - --root=/node
          {{- if eq .action "undo" }}
          - --undo
          {{- else }}
          - --write
          - --hosts-only
          - --url={{ include "dray.nodesURL" .root }}
          {{- range $nodes.registries }}
          - --registry={{ . }}
          {{- end }}
          - --dial-timeout={{ $nodes.dialTimeout }}
          {{- with $nodes.containerdVersion }}
          - --client-version={{ . }}
          {{- end }}
          {{- if $nodes.ca }}
          - --ca=/etc/dray/nodes/ca.pem
          {{- end }}
          {{- end }}
        resources: {{- toYaml $nodes.resources | nindent 10 }}
        # The files of containerd belong to root.
        securityContext: {{- include "dray.nodes.security" 0 | nindent 10 }}
        volumeMounts:
          - name: hosts
            mountPath: /node/etc/containerd/certs.d
          - name: records
            mountPath: /node/var/lib/dray-setup
          {{- if and (eq .action "write") $nodes.ca }}
          - name: ca
            mountPath: /etc/dray/nodes
            readOnly: true
          {{- end }}
    containers:
      - name: hold
        image: {{ include "dray.image" .root }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        args: [setup, nodes, --hold]
        resources: {{- toYaml $nodes.resources | nindent 10 }}
        securityContext: {{- include "dray.nodes.security" 65532 | nindent 10 }}
    volumes:
      - name: hosts
        hostPath:
          path: /etc/containerd/certs.d
          type: DirectoryOrCreate
      - name: records
        hostPath:
          path: /var/lib/dray-setup
          type: DirectoryOrCreate
      {{- if and (eq .action "write") $nodes.ca }}
      - name: ca
        configMap:
          name: {{ include "dray.name" .root }}-nodes
      {{- end }}
{{- end -}}

{{- define "dray.nodes.security" -}}
runAsUser: {{ . }}
runAsGroup: {{ . }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
