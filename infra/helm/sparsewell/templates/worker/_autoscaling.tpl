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
{{- $redis := ternary dict .root.Values.redis .root.Values.trial.redis.enabled }}
{{- $tls := $keda.enableTLS | toString }}
{{- if eq $tls "" }}
{{- $tls = hasPrefix "rediss://" $url | toString }}
{{- if and $redis (not $url) }}
{{- /* The address is in a Secret: the certificates say it. */}}
{{- $tls = ne "" (print $redis.ca.secret $redis.ca.configMap $redis.certSecret.name) | toString }}
{{- end }}
{{- end }}
{{- $secure := ternary $redis dict (eq $tls "true") }}
{{- $auth := $keda.authSecret }}
{{- if and $redis (not $auth.name) }}
{{- $auth = dict "name" $redis.authSecret.name "usernameKey" $redis.authSecret.userKey "passwordKey" $redis.authSecret.passwordKey }}
{{- end }}
{{- $secrets := include "sparsewell.kedaSecrets" (dict "auth" $auth "redis" $secure) | fromYamlArray }}
{{- $authority := "" }}
{{- if $secure }}{{ if not $secure.ca.secret }}{{ $authority = $secure.ca.configMap }}{{ end }}{{ end }}
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
    {{- $queue := include "sparsewell.queue" (dict "root" .root "encoder" .encoder) }}
    {{- $queues := list $queue }}
    {{- range until 16 }}{{ $queues = append $queues (printf "%s.load.%d" $queue .) }}{{ end }}
    {{- range append $queues "sparsewell.ingest" }}
    - type: redis
      metadata:
        address: {{ $address | quote }}
        listName: {{ . }}
        listLength: {{ $.values.autoscaling.messagesPerReplica | quote }}
        activationListLength: "0"
        databaseIndex: {{ $database | quote }}
        enableTLS: {{ $tls | quote }}
        {{- if and $secure (eq (toString $.root.Values.settings.REDIS_VERIFY) "false") }}
        unsafeSsl: "true"
        {{- end }}
      {{- if or $secrets $authority }}
      authenticationRef:
        name: {{ $.name }}
      {{- end }}
    {{- end }}
{{- if or $secrets $authority }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
{{ include "sparsewell.metadata" . }}
spec:
  {{- with $secrets }}
  secretTargetRef:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $authority }}
  configMapTargetRef:
    - parameter: ca
      name: {{ . }}
      key: {{ $redis.ca.key }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What KEDA is told of Secrets. Takes auth (name, usernameKey, passwordKey) and redis (ca, certSecret; empty without TLS). */}}
{{- define "sparsewell.kedaSecrets" -}}
{{- with .auth }}{{ if .name }}
- {parameter: password, name: {{ .name }}, key: {{ .passwordKey }}}
{{- if .usernameKey }}
- {parameter: username, name: {{ .name }}, key: {{ .usernameKey }}}
{{- end }}
{{- end }}{{ end }}
{{- with .redis }}
{{- if .ca.secret }}
- {parameter: ca, name: {{ .ca.secret }}, key: {{ .ca.key }}}
{{- end }}
{{- if .certSecret.name }}
- {parameter: cert, name: {{ .certSecret.name }}, key: {{ .certSecret.certKey }}}
- {parameter: key, name: {{ .certSecret.name }}, key: {{ .certSecret.keyKey }}}
{{- end }}
{{- end }}
{{- end -}}
