{{/* The webhook's settings: webhook/countersign_webhook/settings.py. */}}
{{- define "countersign.webhookSettings" -}}
namespace: {{ .Release.Namespace }}
cluster: {{ .Values.clusterName }}
issuer: {{ include "countersign.webhookURL" . }}
admission:
  port: 9443
  tls_cert: /var/run/countersign/tls/tls.crt
  tls_key: /var/run/countersign/tls/tls.key
  {{- if .Values.webhook.clientCAConfigMap }}
  client_ca: /var/run/countersign/client-ca/ca.crt
  {{- end }}
calls:
  port: 8443
  tls_cert: /var/run/countersign/tls/tls.crt
  tls_key: /var/run/countersign/tls/tls.key
token_keys: /var/run/countersign/token-keys
audiences: {{ .Values.audiences | toJson }}
{{ include "countersign.injectionSettings" . }}
log_level: {{ .Values.logLevel }}
{{- end -}}

{{/* The sidecar: what the webhook injects, and by which the authority knows it again. */}}
{{- define "countersign.injectionSettings" -}}
injection:
  image: {{ include "countersign.image" . }}
  version: {{ .Chart.AppVersion | quote }}
{{- end -}}
