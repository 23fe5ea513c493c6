{{/*
A Job that holds the declared indexes against those that are there. Takes root, name, hook, image and args.
The declaration travels as an annotation of the pod, which it reads as a file: a ConfigMap would have to be a hook too,
and would stay behind when the release goes.
*/}}
{{- define "sparsewell.indexesJob" -}}
{{- $it := set . "component" "indexes" }}
{{- $_ := set $it "values" dict }}
apiVersion: batch/v1
kind: Job
{{ include "sparsewell.metadata" $it }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: {{ .root.Values.indexes.backoffLimit }}
  activeDeadlineSeconds: {{ .root.Values.indexes.activeDeadlineSeconds }}
  template:
    {{- include "sparsewell.podMetadata" $it | nindent 4 }}
        sparsewell/indexes: {{ dict "indexes" .root.Values.indexes.declared | toJson | quote }}
    spec:
      restartPolicy: Never
      {{- include "sparsewell.podSpec" $it | nindent 6 }}
      containers:
        - name: indexes
          image: {{ include "sparsewell.image" . }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [sparsewell]
          args:
            {{- toYaml .args | nindent 12 }}
          env:
            {{- include "sparsewell.env" (dict "root" .root "component" .component "own" list) | nindent 12 }}
          envFrom:
            {{- include "sparsewell.envFrom" .root | nindent 12 }}
          resources:
            {{- toYaml .root.Values.indexes.resources | nindent 12 }}
          {{- include "sparsewell.containerSecurity" .root | nindent 10 }}
          {{- include "sparsewell.volumeMounts" $it | nindent 10 }}
            - name: declaration
              mountPath: /etc/sparsewell
              readOnly: true
      {{- include "sparsewell.volumes" $it | nindent 6 }}
        - name: declaration
          downwardAPI:
            items:
              - path: indexes.json
                fieldRef:
                  fieldPath: metadata.annotations['sparsewell/indexes']
{{- end -}}
