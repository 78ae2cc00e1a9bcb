{{/* The authority's settings: operator/countersign/authority/settings.py. */}}
{{- define "countersign.authoritySettings" -}}
namespace: {{ .Release.Namespace }}
cluster: {{ .Values.clusterName }}
url: {{ include "countersign.authorityURL" . }}
listen:
  port: 8443
  tls_cert: /var/run/countersign/tls/tls.crt
  tls_key: /var/run/countersign/tls/tls.key
{{ include "countersign.injectionSettings" . }}
log_level: {{ .Values.logLevel }}
{{- end -}}
