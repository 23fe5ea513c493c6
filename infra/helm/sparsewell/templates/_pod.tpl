{{/* What every pod of ours has in common. Takes root, component and values (the component's). */}}
{{- define "sparsewell.podMetadata" -}}
metadata:
  labels:
    {{- include "sparsewell.labels" . | nindent 4 }}
  annotations:
    # pods read their settings when they start
    checksum/settings: {{ include "sparsewell.settings" .root | sha256sum }}
    {{- with mergeOverwrite (deepCopy .root.Values.podAnnotations) (.values.podAnnotations | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "sparsewell.podSpec" -}}
serviceAccountName: {{ include "sparsewell.serviceAccount" .root }}
automountServiceAccountToken: false
# Kubernetes would set SPARSEWELL_API_PORT=tcp://... for a Service of that name, which is a setting of ours.
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Pods of one roll-out over zones and nodes: as well as can be, for a pod that waits for the perfect place serves nobody. */}}
{{- define "sparsewell.spread" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "sparsewell.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sparsewell.metricsPort" -}}
{{- if .Values.monitoring.metrics.enabled -}}
- name: metrics
  containerPort: {{ .Values.monitoring.metrics.port }}
{{- end -}}
{{- end -}}

{{- define "sparsewell.containerSecurity" -}}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{/* Takes root and component. */}}
{{- define "sparsewell.volumeMounts" -}}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- if include "sparsewell.secretFiles" . | fromYamlArray }}
  - name: secrets
    mountPath: /etc/sparsewell/secrets
    readOnly: true
{{- end }}
{{- if .root.Values.modelFiles.volume }}
  - name: models
    mountPath: {{ .root.Values.modelFiles.mountPath }}
    readOnly: true
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes root and component. */}}
{{- define "sparsewell.volumes" -}}
volumes:
  - name: tmp
    emptyDir:
      {{- /* CUDA keeps what it compiles below HOME, which is /tmp: up to 1 GiB. More than the limit is an eviction. */}}
      sizeLimit: {{ ternary "2Gi" "64Mi" (eq .component "gpu-worker") }}
{{- with include "sparsewell.secretFiles" . | fromYamlArray }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range . }}
        - {{ .kind }}:
            name: {{ .name }}
            items:
              - key: {{ .key }}
                path: {{ .file }}
        {{- end }}
{{- end }}
{{- with .root.Values.modelFiles.volume }}
  - name: models
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- with .root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* preStop, then DRAIN_SECONDS, then 10 s for requests under way: a grace that ends before is an answer cut off. Takes component, values and drain. */}}
{{- define "sparsewell.requireGrace" -}}
{{- $needed := add (int .values.drainSeconds) (ceil (default 0 .drain)) 12 }}
{{- if lt (int .values.terminationGracePeriodSeconds) (int $needed) }}
{{- fail (printf "%s.terminationGracePeriodSeconds must be %d at least: %s.drainSeconds, DRAIN_SECONDS and 12 s for requests under way." .component $needed .component) }}
{{- end }}
{{- end -}}

{{/* A killed task is repeated from its beginning, so a grace below the limit of a task may never let a long one end. Takes component, values and limit. */}}
{{- define "sparsewell.requireTaskGrace" -}}
{{- $limit := default 300 .limit | float64 }}
{{- range .values.env }}
{{- if and (eq .name "SPARSEWELL_TASK_LIMIT") .value }}{{ $limit = float64 .value }}{{ end }}
{{- end }}
{{- $needed := addf $limit 15 | ceil | int }}
{{- if lt (int .values.terminationGracePeriodSeconds) $needed }}
{{- fail (printf "%s.terminationGracePeriodSeconds must be %d at least: TASK_LIMIT and 15 s for writing and ending." .component $needed) }}
{{- end }}
{{- end -}}

{{/* Takes values (rollingUpdate). */}}
{{- define "sparsewell.rollingUpdate" -}}
rollingUpdate:
  maxSurge: {{ .values.rollingUpdate.maxSurge }}
  maxUnavailable: {{ .values.rollingUpdate.maxUnavailable }}
{{- end -}}

{{/* Takes root, component, name and values (podDisruptionBudget). */}}
{{- define "sparsewell.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
{{ include "sparsewell.metadata" . }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready holds up no drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "sparsewell.selector" . | nindent 6 }}
{{- end -}}
