{{/* The settings of every process; what the chart sets itself is not to be had in `settings`. */}}
{{- define "sparsewell.settings" -}}
SPARSEWELL_ENCODER: {{ .Values.encoder.name | quote }}
{{- with .Values.encoder.more }}
SPARSEWELL_MORE_ENCODERS: {{ join "," . | quote }}
{{- end }}
SPARSEWELL_CACHE_DIR: {{ .Values.modelFiles.mountPath | quote }}
{{- if .Values.models.enabled }}
SPARSEWELL_MODEL_URL: {{ printf "http://%s-models.%s.svc:8020" (include "sparsewell.fullname" .) .Release.Namespace | quote }}
SPARSEWELL_MODEL_TIMEOUT: {{ .Values.models.timeout | quote }}
{{- end }}
{{- if .Values.monitoring.metrics.enabled }}
SPARSEWELL_METRICS_HOST: 0.0.0.0
SPARSEWELL_METRICS_PORT: {{ .Values.monitoring.metrics.port | quote }}
{{- end }}
{{- with .Values.monitoring.traces }}{{ if .endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ .endpoint | quote }}
OTEL_TRACES_SAMPLER: parentbased_traceidratio
OTEL_TRACES_SAMPLER_ARG: {{ .ratio | quote }}
{{- end }}{{ end }}
SPARSEWELL_ACCESS: {{ .Values.access.mode }}
{{- if and (eq .Values.access.mode "open") (not (hasKey .Values.settings "ALLOWED_HOSTS")) }}
{{- $name := printf "%s-api.%s" (include "sparsewell.fullname" .) .Release.Namespace }}
{{- $hosts := list $name (printf "%s.svc" $name) (printf "%s.svc.cluster.local" $name) }}
{{- if .Values.api.ingress.enabled }}{{ $hosts = concat $hosts .Values.api.ingress.hosts }}{{ end }}
{{- if .Values.api.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.api.httpRoute.hostnames }}{{ end }}
SPARSEWELL_ALLOWED_HOSTS: {{ join "," $hosts | replace "*." "." | quote }}
{{- end }}
{{- if not (hasKey .Values.settings "REPLICAS") }}
SPARSEWELL_REPLICAS: {{ ternary "0" "1" .Values.trial.opensearch.enabled | quote }}
{{- end }}
{{- with .Values.access.oidcIssuer }}
SPARSEWELL_OIDC_ISSUER: {{ . | quote }}
SPARSEWELL_OIDC_AUDIENCE: {{ required "access.oidcIssuer needs access.oidcAudience." $.Values.access.oidcAudience | quote }}
{{- end }}
{{- with .Values.opensearch.awsRegion }}
SPARSEWELL_OPENSEARCH_AWS_REGION: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- /* toJson, because a large number is a float here and would be said as 1.34217728e+08 */}}
SPARSEWELL_{{ $name }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end -}}

{{/* An address in plain values. Its value is never repeated: a schema's complaint would show the password that it may hold. Takes name, url and schemes. */}}
{{- define "sparsewell.plainAddress" -}}
{{- if not .url }}
{{- fail (printf "Say where it is: %s.url or %s.urlSecret.name (or, for a trial, trial.%s.enabled)." .name .name .name) }}
{{- end }}
{{- if contains "@" .url }}
{{- fail (printf "%s.url names a user or a password: put the address into a Secret and name that in %s.urlSecret." .name .name) }}
{{- end }}
{{- if not (regexMatch (printf "^(%s)://[^\\s]+$" .schemes) .url) }}
{{- fail (printf "%s.url is not an address that begins with %s://." .name (.schemes | replace "|" ":// or ")) }}
{{- end }}
{{- .url | quote -}}
{{- end -}}

{{/* Addresses, which may be secrets. */}}
{{- define "sparsewell.addresses" -}}
- name: SPARSEWELL_OPENSEARCH_URL
{{- if .Values.trial.opensearch.enabled }}
  value: {{ printf "http://%s-trial-opensearch:9200" (include "sparsewell.fullname" .) }}
{{- else if .Values.opensearch.urlSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.opensearch.urlSecret.name }}
      key: {{ .Values.opensearch.urlSecret.key }}
{{- else }}
  value: {{ include "sparsewell.plainAddress" (dict "name" "opensearch" "url" .Values.opensearch.url "schemes" "http|https") }}
{{- end }}
- name: SPARSEWELL_REDIS_URL
{{- if .Values.trial.redis.enabled }}
  value: {{ printf "redis://%s-trial-redis:6379/0" (include "sparsewell.fullname" .) }}
{{- else if .Values.redis.urlSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.urlSecret.name }}
      key: {{ .Values.redis.urlSecret.key }}
{{- else }}
  value: {{ include "sparsewell.plainAddress" (dict "name" "redis" "url" .Values.redis.url "schemes" "redis|rediss") }}
{{- end }}
{{- end -}}

{{/* env of a container: takes root, component and own (the component's env). */}}
{{- define "sparsewell.env" -}}
{{- if ne .component "models" }}
{{- include "sparsewell.addresses" .root }}
{{- with include "sparsewell.users" . | trim }}
{{ . }}
{{- end }}
{{- end }}
{{- range include "sparsewell.secretFiles" . | fromYamlArray }}
- name: SPARSEWELL_{{ .variable }}
  value: /etc/sparsewell/secrets/{{ .file }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sparsewell.envFrom" -}}
- configMapRef:
    name: {{ include "sparsewell.fullname" . }}-settings
{{- end -}}
