{{/*
What is mounted from Secrets below /etc/sparsewell/secrets, and the settings that name the files. Files, because Kubernetes
replaces them when the Secret changes, and most are read again then. Takes root and component; gives a list of file, kind, name,
key and variable.
*/}}
{{- define "sparsewell.secretFiles" -}}
{{- if ne .component "models" }}
{{- range $store := list "opensearch" "redis" }}
{{- $values := get $.root.Values $store }}
{{- $upper := upper $store }}
{{- with include "sparsewell.secretOf" (dict "values" $values "kind" "auth" "component" $.component) }}
- {file: {{ $store }}-password, kind: secret, name: {{ . }}, key: {{ $values.authSecret.passwordKey }}, variable: {{ $upper }}_PASSWORD_FILE}
{{- end }}
{{- with $values.ca }}{{ if or .secret .configMap }}
- {file: {{ $store }}-ca.pem, kind: {{ ternary "secret" "configMap" (ne .secret "") }}, name: {{ default .configMap .secret }}, key: {{ .key }}, variable: {{ $upper }}_CA}
{{- end }}{{ end }}
{{- with include "sparsewell.secretOf" (dict "values" $values "kind" "cert" "component" $.component) }}
- {file: {{ $store }}-cert.pem, kind: secret, name: {{ . }}, key: {{ $values.certSecret.certKey }}, variable: {{ $upper }}_CERT}
- {file: {{ $store }}-key.pem, kind: secret, name: {{ . }}, key: {{ $values.certSecret.keyKey }}, variable: {{ $upper }}_KEY}
{{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.access }}
{{- if and .adminKeySecret.name (has $.component (list "api" "indexes" "commands")) }}
- {file: admin-key, kind: secret, name: {{ .adminKeySecret.name }}, key: {{ .adminKeySecret.key }}, variable: ADMIN_KEY_FILE}
{{- end }}
{{- if and .modelKeySecret.name (has $.component (list "api" "models")) }}
- {file: model-key, kind: secret, name: {{ .modelKeySecret.name }}, key: {{ .modelKeySecret.key }}, variable: MODEL_KEY_FILE}
{{- end }}
{{- end }}
{{- end -}}

{{/* Users, which are read from variables. Takes root and component. */}}
{{- define "sparsewell.users" -}}
{{- range $store := list "opensearch" "redis" }}
{{- $values := get $.root.Values $store }}
{{- $secret := include "sparsewell.secretOf" (dict "values" $values "kind" "auth" "component" $.component) }}
{{- if and $secret $values.authSecret.userKey }}
- name: SPARSEWELL_{{ upper $store }}_USER
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $values.authSecret.userKey }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
The Secret of a store that a component is given: that of its part (authSecrets, certSecrets), else that of all. Takes values
(the store's), kind (auth or cert) and component.
*/}}
{{- define "sparsewell.secretOf" -}}
{{- $part := get (dict "api" "api" "worker" "worker" "gpu-worker" "worker") .component | default "operator" }}
{{- $own := get (get .values (printf "%sSecrets" .kind) | default dict) $part }}
{{- default (get .values (printf "%sSecret" .kind)).name $own }}
{{- end -}}
