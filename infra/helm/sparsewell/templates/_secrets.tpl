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
{{- with $values.authSecret }}{{ if .name }}
- {file: {{ $store }}-password, kind: secret, name: {{ .name }}, key: {{ .passwordKey }}, variable: {{ $upper }}_PASSWORD_FILE}
{{- end }}{{ end }}
{{- with $values.ca }}{{ if or .secret .configMap }}
- {file: {{ $store }}-ca.pem, kind: {{ ternary "secret" "configMap" (ne .secret "") }}, name: {{ default .configMap .secret }}, key: {{ .key }}, variable: {{ $upper }}_CA}
{{- end }}{{ end }}
{{- with $values.certSecret }}{{ if .name }}
- {file: {{ $store }}-cert.pem, kind: secret, name: {{ .name }}, key: {{ .certKey }}, variable: {{ $upper }}_CERT}
- {file: {{ $store }}-key.pem, kind: secret, name: {{ .name }}, key: {{ .keyKey }}, variable: {{ $upper }}_KEY}
{{- end }}{{ end }}
{{- end }}
{{- end }}
{{- with .root.Values.access }}
{{- if and .adminKeySecret.name (has $.component (list "api" "indexes")) }}
- {file: admin-key, kind: secret, name: {{ .adminKeySecret.name }}, key: {{ .adminKeySecret.key }}, variable: ADMIN_KEY_FILE}
{{- end }}
{{- if and .modelKeySecret.name (has $.component (list "api" "models")) }}
- {file: model-key, kind: secret, name: {{ .modelKeySecret.name }}, key: {{ .modelKeySecret.key }}, variable: MODEL_KEY_FILE}
{{- end }}
{{- end }}
{{- end -}}

{{/* Users, which are read from variables. */}}
{{- define "sparsewell.users" -}}
{{- range $store := list "opensearch" "redis" }}
{{- with (get $.Values $store).authSecret }}{{ if and .name .userKey }}
- name: SPARSEWELL_{{ upper $store }}_USER
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .userKey }}
{{- end }}{{ end }}
{{- end }}
{{- end -}}
