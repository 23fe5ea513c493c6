{{/* The objects of one kind of workers. Takes root, component, values, image, encoder (name, queue) and gpu (a boolean). */}}
{{- define "sparsewell.workers" -}}
{{- $it := set . "name" (printf "%s-%s" (include "sparsewell.fullname" .root) .component) }}
{{- $component := ternary "gpuWorker" "worker" .gpu }}
{{- include "sparsewell.requireTaskGrace" (dict "component" $component "values" .values "limit" .root.Values.settings.TASK_LIMIT) }}
apiVersion: apps/v1
kind: Deployment
{{ include "sparsewell.metadata" $it }}
spec:
  {{- if eq .values.autoscaling.kind "none" }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    {{- include "sparsewell.rollingUpdate" . | nindent 4 }}
  # A pod has 200 s to start. After this time without progress a roll-out counts as failed.
  progressDeadlineSeconds: 300
  selector:
    matchLabels:
      {{- include "sparsewell.selector" $it | nindent 6 }}
  template:
    {{- include "sparsewell.podMetadata" $it | nindent 4 }}
    spec:
      {{- include "sparsewell.podSpec" $it | nindent 6 }}
      {{- include "sparsewell.spread" $it | nindent 6 }}
      # SIGTERM takes nothing new and finishes what has begun: so there is no preStop.
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      containers:
        - name: worker
          image: {{ include "sparsewell.image" . }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [sparsewell]
          args: [worker]
          env:
            {{- if .encoder.name }}
            - name: SPARSEWELL_ENCODER
              value: {{ .encoder.name | quote }}
            {{- end }}
            # Given, because the default counts the cores that the pod may use, and there is no limit on those.
            - name: SPARSEWELL_WORKER_CONCURRENCY
              value: {{ .values.concurrency | quote }}
            - name: SPARSEWELL_WORKER_THREADS
              value: {{ .values.threads | quote }}
            {{- with .values.batchPieces }}
            - name: SPARSEWELL_BATCH_PIECES
              value: {{ int64 . | quote }}
            {{- end }}
            {{- include "sparsewell.env" (dict "root" .root "component" .component "own" .values.env) | nindent 12 }}
          envFrom:
            {{- include "sparsewell.envFrom" .root | nindent 12 }}
          {{- with include "sparsewell.metricsPort" .root }}
          ports:
            {{- . | nindent 12 }}
          {{- end }}
          # Started: it answers a ping through Redis, so it takes messages. Without Redis it ends by itself after REDIS_WAIT.
          startupProbe:
            exec:
              command: [python, -m, infra.health, worker]
            periodSeconds: 10
            timeoutSeconds: 20
            failureThreshold: 20
          # Alive: its threads run. Redis is not asked: a worker waits for one that is away, and a restart would not bring it back.
          livenessProbe:
            exec:
              command: [python, -m, infra.health, worker-alive]
            periodSeconds: 60
            timeoutSeconds: 50
            failureThreshold: 3
          # Ready: as started. Nothing is sent to it by that; roll-outs and disruption budgets count it.
          readinessProbe:
            exec:
              command: [python, -m, infra.health, worker]
            periodSeconds: 60
            timeoutSeconds: 20
            failureThreshold: 3
          resources:
            {{- if .gpu }}
            {{- $gpus := dict "requests" (dict .values.resourceName .values.gpus) "limits" (dict .values.resourceName .values.gpus) }}
            {{- toYaml (mergeOverwrite (deepCopy .values.resources) $gpus) | nindent 12 }}
            {{- else }}
            {{- toYaml .values.resources | nindent 12 }}
            {{- end }}
          {{- include "sparsewell.containerSecurity" .root | nindent 10 }}
          {{- include "sparsewell.volumeMounts" $it | nindent 10 }}
      {{- include "sparsewell.volumes" $it | nindent 6 }}
{{- if .values.podDisruptionBudget.enabled }}
---
{{ include "sparsewell.disruptionBudget" $it }}
{{- end }}
{{- if eq .values.autoscaling.kind "external" }}
---
{{ include "sparsewell.externalAutoscaler" $it }}
{{- else if eq .values.autoscaling.kind "keda" }}
---
{{ include "sparsewell.scaledObject" $it }}
{{- end }}
{{- end -}}
