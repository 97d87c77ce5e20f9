{{- define "ray.labels" -}}
app.kubernetes.io/name: ray-cluster
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The pods of a group: root is all, group the group's values, name its container's. */}}
{{- define "ray.pod" -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) (.group.image | default dict) -}}
metadata:
  labels:
    app.kubernetes.io/instance: {{ .root.Release.Name }} # the name is KubeRay's to give: its Services select it
    {{- with .group.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations: {{- toYaml (.group.annotations | default dict) | nindent 4 }}
spec:
  {{- with .group.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  imagePullSecrets: {{- toYaml .root.Values.imagePullSecrets | nindent 4 }}
  nodeSelector: {{- toYaml (.group.nodeSelector | default dict) | nindent 4 }}
  tolerations: {{- toYaml (.group.tolerations | default list) | nindent 4 }}
  affinity: {{- toYaml (.group.affinity | default dict) | nindent 4 }}
  {{- with .group.initContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes: {{- toYaml (.group.volumes | default list) | nindent 4 }}
  containers:
    - name: {{ .name }}
      image: {{ $image.repository }}:{{ $image.tag }}
      imagePullPolicy: {{ $image.pullPolicy }}
      {{- with .group.command }}
      command: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .group.args }}
      args: {{- toYaml . | nindent 8 }}
      {{- end }}
      env: {{- toYaml (.group.containerEnv | default list) | nindent 8 }}
      envFrom: {{- toYaml (.group.envFrom | default list) | nindent 8 }}
      resources: {{- toYaml (.group.resources | default dict) | nindent 8 }}
      securityContext: {{- toYaml (.group.securityContext | default dict) | nindent 8 }}
      volumeMounts: {{- toYaml (.group.volumeMounts | default list) | nindent 8 }}
    {{- with .group.sidecarContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
