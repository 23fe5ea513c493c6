{{/* What waits, by an adapter that publishes it as an external metric. */}}
{{- define "sparsewell.externalAutoscaler" -}}
{{- if lt (int .values.autoscaling.minReplicas) 1 }}
{{- fail (printf "%s: autoscaling.minReplicas 0 needs autoscaling.kind keda." .component) }}
{{- end }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
{{ include "sparsewell.metadata" . }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .name }}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: External
      external:
        metric:
          name: {{ .values.autoscaling.external.metricName }}
          {{- with .values.autoscaling.external.matchLabels }}
          selector:
            matchLabels:
              {{- toYaml . | nindent 14 }}
          {{- end }}
        target:
          type: AverageValue
          averageValue: {{ .values.autoscaling.messagesPerReplica | quote }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
{{- end -}}

{{/* What waits, as KEDA counts it in Redis: the encoder's queue, and that of whole documents, which every worker serves. */}}
{{- define "sparsewell.scaledObject" -}}
{{- $keda := .values.autoscaling.keda }}
{{- $address := $keda.address }}
{{- if not $address }}
{{- if .root.Values.trial.redis.enabled }}
{{- $address = printf "%s-trial-redis.%s.svc:6379" (include "sparsewell.fullname" .root) .root.Release.Namespace }}
{{- else if .root.Values.redis.url }}
{{- $host := (urlParse .root.Values.redis.url).host | splitList "@" | last }}
{{- $address = ternary $host (printf "%s:6379" $host) (contains ":" $host) }}
{{- else }}
{{- fail (printf "%s: redis.urlSecret hides the address of Redis from KEDA: say it as autoscaling.keda.address (host:port)." .component) }}
{{- end }}
{{- end }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
{{ include "sparsewell.metadata" . }}
spec:
  scaleTargetRef:
    name: {{ .name }}
  minReplicaCount: {{ .values.autoscaling.minReplicas }}
  maxReplicaCount: {{ .values.autoscaling.maxReplicas }}
  pollingInterval: {{ $keda.pollingInterval }}
  cooldownPeriod: {{ $keda.cooldownPeriod }}
  triggers:
    {{- range list (include "sparsewell.queue" (dict "root" .root "encoder" .encoder)) "sparsewell.ingest" }}
    - type: redis
      metadata:
        address: {{ $address | quote }}
        listName: {{ . }}
        listLength: {{ $.values.autoscaling.messagesPerReplica | quote }}
        activationListLength: "0"
        databaseIndex: {{ $keda.databaseIndex | quote }}
        enableTLS: {{ $keda.enableTLS | quote }}
      {{- if $keda.authSecret.name }}
      authenticationRef:
        name: {{ $.name }}
      {{- end }}
    {{- end }}
{{- if $keda.authSecret.name }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
{{ include "sparsewell.metadata" . }}
spec:
  secretTargetRef:
    - parameter: password
      name: {{ $keda.authSecret.name }}
      key: {{ $keda.authSecret.passwordKey }}
    {{- with $keda.authSecret.usernameKey }}
    - parameter: username
      name: {{ $keda.authSecret.name }}
      key: {{ . }}
    {{- end }}
{{- end }}
{{- end -}}
