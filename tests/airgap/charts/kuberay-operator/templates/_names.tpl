{{- define "operator.name" -}}
{{ .Values.fullnameOverride | default (printf "%s-%s" .Release.Name .Values.nameOverride) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "operator.image" -}}
{{- $home := ternary "kuberay/operator" "quay.io/kuberay/operator" (semverCompare "<1.1.0-0" .Chart.Version) -}}
{{ .Values.image.repository | default $home }}:{{ .Values.image.tag | default (printf "v%s" .Chart.Version) }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: kuberay-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/component: kuberay-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
