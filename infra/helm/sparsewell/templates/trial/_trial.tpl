{{/* Takes root and store. Another name than ours, so that no policy or selector of ours means them. */}}
{{- define "sparsewell.trialSelector" -}}
app.kubernetes.io/name: sparsewell-trial-{{ .store }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "sparsewell.trialHead" -}}
metadata:
  name: {{ include "sparsewell.fullname" .root }}-trial-{{ .store }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sparsewell.trialSelector" . | nindent 4 }}
    app.kubernetes.io/part-of: sparsewell
    app.kubernetes.io/managed-by: {{ .root.Release.Service }}
    helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
    {{- with .root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Service, network policy, and the claim of its volume. Takes root, store, port and storage (storage, storageClassName). */}}
{{- define "sparsewell.trialAround" -}}
apiVersion: v1
kind: Service
{{ include "sparsewell.trialHead" . }}
spec:
  selector:
    {{- include "sparsewell.trialSelector" . | nindent 4 }}
  ports:
    - name: {{ .store }}
      port: {{ .port }}
      targetPort: {{ .port }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
{{ include "sparsewell.trialHead" . }}
spec:
  # It has no password: only pods of this release reach it.
  podSelector:
    matchLabels:
      {{- include "sparsewell.trialSelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - protocol: TCP
          port: {{ .port }}
      from:
        - podSelector:
            matchLabels:
              {{- include "sparsewell.ours" .root | nindent 14 }}
        {{- if and (eq .store "redis") (has "keda" (list .root.Values.worker.autoscaling.kind .root.Values.gpuWorker.autoscaling.kind)) }}
        {{- with .root.Values.networkPolicy.kedaFrom }}
        # who counts what waits
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
{{- end }}
{{- end -}}

{{- define "sparsewell.trialClaim" -}}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .storage }}
{{- end -}}
