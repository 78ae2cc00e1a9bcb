{{/* The node's settings: operator/countersign/node/settings.py. */}}
{{- define "countersign.nodeSettings" -}}
{{- if eq .Values.node.type "Simulator" -}}
socket_dir: {{ .Values.node.simulator.socketDir }}
{{ else -}}
device: {{ .Values.node.device }}
slots: {{ .Values.node.slots }}
{{ end -}}
log_level: {{ .Values.logLevel }}
{{- end -}}
