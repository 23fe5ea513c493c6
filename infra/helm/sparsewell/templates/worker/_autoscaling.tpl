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
{{- $url := ternary "" .root.Values.redis.url .root.Values.trial.redis.enabled }}
{{- $database := $keda.databaseIndex | toString }}
{{- if eq $database "" }}
{{- $database = default "0" ((urlParse $url).path | trimPrefix "/") }}
{{- end }}
{{- $tls := $keda.enableTLS | toString }}
{{- if eq $tls "" }}
{{- $tls = hasPrefix "rediss://" $url | toString }}
{{- end }}
{{- $auth := $keda.authSecret }}
{{- if not (or $auth.name .root.Values.trial.redis.enabled) }}
{{- $redis := .root.Values.redis.authSecret }}
{{- $auth = dict "name" $redis.name "usernameKey" $redis.userKey "passwordKey" $redis.passwordKey }}
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
        databaseIndex: {{ $database | quote }}
        enableTLS: {{ $tls | quote }}
      {{- if $auth.name }}
      authenticationRef:
        name: {{ $.name }}
      {{- end }}
    {{- end }}
{{- if $auth.name }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
{{ include "sparsewell.metadata" . }}
spec:
  secretTargetRef:
    - parameter: password
      name: {{ $auth.name }}
      key: {{ $auth.passwordKey }}
    {{- with $auth.usernameKey }}
    - parameter: username
      name: {{ $auth.name }}
      key: {{ . }}
    {{- end }}
{{- end }}
{{- end -}}
