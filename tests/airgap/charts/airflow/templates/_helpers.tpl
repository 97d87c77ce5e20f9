{{- define "airflow.labels" -}}
tier: airflow
component: {{ .component }}
release: {{ .root.Release.Name }}
{{- end }}

{{- define "airflow.image" -}}
{{ .Values.defaultAirflowRepository }}:{{ .Values.defaultAirflowTag }}
{{- end }}

{{- define "airflow.dagsFolder" -}}
{{ .Values.airflowHome }}/dags{{ if .Values.dags.gitSync.enabled }}/repo/{{ .Values.dags.gitSync.subPath }}{{ end }}
{{- end }}

{{- /* The environment that every container of Airflow has: keys and the database from Secrets. */}}
{{- define "airflow.env" -}}
{{- $keys := list
  (list "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" .Values.data.metadataSecretName "connection")
  (list "AIRFLOW__CORE__FERNET_KEY" .Values.fernetKeySecretName "fernet-key")
  (list "AIRFLOW__API__SECRET_KEY" .Values.apiSecretKeySecretName "api-secret-key")
  (list "AIRFLOW__API_AUTH__JWT_SECRET" .Values.jwtSecretName "jwt-secret") }}
{{- range $keys }}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 2 }}}}
{{- end }}
{{- end }}

{{- define "airflow.extraEnv" -}}
{{- with .Values.extraEnv }}
{{- tpl . $ }}
{{- end }}
{{- end }}

{{- define "airflow.mounts" -}}
- {name: config, mountPath: {{ .Values.airflowHome }}/airflow.cfg, subPath: airflow.cfg, readOnly: true}
- name: config
  mountPath: {{ .Values.airflowHome }}/config/airflow_local_settings.py
  subPath: airflow_local_settings.py
  readOnly: true
- {name: logs, mountPath: {{ .Values.airflowHome }}/logs}
{{- if .Values.dags.gitSync.enabled }}
- {name: dags, mountPath: {{ .Values.airflowHome }}/dags, readOnly: true}
{{- end }}
{{- end }}

{{- define "airflow.volumes" -}}
- name: config
  configMap: {name: {{ .Release.Name }}-config}
- name: logs
{{- if .Values.logs.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .Values.logs.persistence.existingClaim | default (printf "%s-logs" .Release.Name) }}}
{{- else }}
  emptyDir: {}
{{- end }}
{{- if .Values.dags.gitSync.enabled }}
- name: dags
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "airflow.waitForMigrations" -}}
- name: wait-for-airflow-migrations
  image: {{ include "airflow.image" . }}
  imagePullPolicy: {{ .Values.images.airflow.pullPolicy }}
  securityContext: {{- toYaml .Values.securityContexts.containers | nindent 4 }}
  args: [airflow, db, check-migrations, --migration-wait-timeout={{ .Values.images.migrationsWaitTimeout }}]
  env: {{- include "airflow.env" . | nindent 4 }}
  volumeMounts: {{- include "airflow.mounts" . | nindent 4 }}
{{- end }}

{{- /* git-sync: once before the start (once: true), then beside it, again and again. */}}
{{- define "airflow.gitSync" -}}
{{- with .root.Values.dags.gitSync }}
- name: git-sync{{ if $.once }}-init{{ end }}
  image: {{ $.root.Values.images.gitSync.repository }}:{{ $.root.Values.images.gitSync.tag }}
  imagePullPolicy: {{ $.root.Values.images.gitSync.pullPolicy }}
  securityContext: {{- toYaml .securityContexts.container | nindent 4 }}
  env:
    - {name: GITSYNC_REPO, value: {{ .repo | quote }}}
    - {name: GITSYNC_REF, value: {{ .ref | quote }}}
    - {name: GITSYNC_DEPTH, value: {{ .depth | quote }}}
    - {name: GITSYNC_ROOT, value: /git}
    - {name: GITSYNC_LINK, value: repo}
    - {name: GITSYNC_PERIOD, value: {{ if .wait }}{{ .wait }}s{{ else }}{{ .period }}{{ end }}}
    - {name: GITSYNC_MAX_FAILURES, value: {{ .maxFailures | quote }}}
    {{- if $.once }}
    - {name: GITSYNC_ONE_TIME, value: "true"}
    {{- end }}
  resources: {{- toYaml .resources | nindent 4 }}
  volumeMounts:
    - {name: dags, mountPath: /git}
{{- end }}
{{- end }}
