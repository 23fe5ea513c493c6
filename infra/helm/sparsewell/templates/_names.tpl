{{/* Names and labels. */}}
{{- define "sparsewell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room for the longest suffix, "-trial-opensearch", is left below the 63 characters of a label. */}}
{{- define "sparsewell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sparsewell.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a selector may name: nothing that changes with an upgrade. Takes root and component. */}}
{{- define "sparsewell.selector" -}}
app.kubernetes.io/name: {{ include "sparsewell.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Of all pods of ours of this release, for policies: trial stores are none of them. */}}
{{- define "sparsewell.ours" -}}
app.kubernetes.io/name: {{ include "sparsewell.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sparsewell.labels" -}}
{{ include "sparsewell.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sparsewell
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The head of an object: takes root, component and name. */}}
{{- define "sparsewell.metadata" -}}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sparsewell.labels" . | nindent 4 }}
{{- end -}}

{{- define "sparsewell.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sparsewell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Takes root and image (repository, tag, digest). */}}
{{- define "sparsewell.image" -}}
{{- $registry := .root.Values.image.registry | trimSuffix "/" -}}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (eq $registry "") -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- if .root.Values.image.requireDigests -}}
{{- fail (printf "image.requireDigests: the image %s has no digest (image.api, image.worker, gpuWorker.image)." .image.repository) -}}
{{- end -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* An image in one string, of a trial's store. Takes root, store and image. */}}
{{- define "sparsewell.trialImage" -}}
{{- if and .root.Values.image.requireDigests (not (regexMatch "@sha256:[0-9a-f]{64}$" .image)) -}}
{{- fail (printf "image.requireDigests: the image trial.%s.image has no digest." .store) -}}
{{- end -}}
{{- .image -}}
{{- end -}}

{{- define "sparsewell.apiAddress" -}}
{{- printf "http://%s-api.%s.svc:%v" (include "sparsewell.fullname" .) .Release.Namespace .Values.api.service.port -}}
{{- end -}}

{{/* The queue of an encoder is called after the name in its manifest. Takes root and encoder (name, queue). */}}
{{- define "sparsewell.queue" -}}
{{- $name := default .root.Values.encoder.name .encoder.name -}}
{{- $queue := .encoder.queue -}}
{{- if and (not $queue) (eq $name .root.Values.encoder.name) -}}
{{- $queue = .root.Values.encoder.queue -}}
{{- end -}}
{{- if and (not $queue) (contains "/" $name) -}}
{{- fail (printf "The encoder %s is a path: say its name in its manifest as encoder.queue (or gpuWorker.encoder.queue), its queue is called after it." $name) -}}
{{- end -}}
{{- printf "sparsewell.encode.%s" (default $name $queue) -}}
{{- end -}}

{{/* Whom a rule of a policy lets a pod reach. Takes name (of the value with `to`), to, and urls (separated by commas; hidden ones are empty). */}}
{{- define "sparsewell.peers" -}}
{{- if .to }}
{{- toYaml .to }}
{{- else }}
{{- $peers := list }}
{{- range $url := splitList "," .urls }}
{{- $host := regexReplaceAll ":[0-9]+$" (regexReplaceAll "^[a-z]+://([^/?]*).*$" (trim $url) "${1}") "" | trimPrefix "[" | trimSuffix "]" }}
{{- if regexMatch "^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$" $host }}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/32" $host))) }}
{{- else if regexMatch "^[0-9a-f]*:[0-9a-f:]+$" $host }}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/128" $host))) }}
{{- else if regexMatch "^[a-z0-9-]+$" $host }}
{{- $peers = append $peers (dict "podSelector" dict) }}
{{- else if regexMatch "^([a-z0-9-]+[.])+svc([.]|$)" $host }}
{{- $namespace := regexReplaceAll "[.]svc([.].*)?$" $host "" | splitList "." | last }}
{{- $peers = append $peers (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace))) }}
{{- else }}
{{- fail (printf "%s must name the destination, as `to` of a NetworkPolicy: its address is hidden in a Secret or is no Service of the cluster. `[{ipBlock: {cidr: 0.0.0.0/0}}]` is any address." $.name) }}
{{- end }}
{{- end }}
{{- toYaml ($peers | uniq) }}
{{- end }}
{{- end -}}

{{/* Ports of a policy: those of the list, and those that addresses name. Takes ports and urls (separated by commas). */}}
{{- define "sparsewell.ports" -}}
{{- $ports := list }}
{{- range .ports }}{{ $ports = append $ports (int .) }}{{ end }}
{{- range regexFindAll "://[^/?,]+" .urls -1 }}
{{- with regexFind ":[0-9]+$" . | trimPrefix ":" }}{{ $ports = append $ports (int .) }}{{ end }}
{{- end }}
{{- range $ports | uniq }}
- protocol: TCP
  port: {{ . }}
{{- end }}
{{- end -}}
