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
  {{- if .Values.webhook.pepCAConfigMap }}
  client_ca: /var/run/countersign/pep-ca/ca.crt
  {{- end }}
token_keys: /var/run/countersign/token-keys
workers: {{ .Values.webhook.workers }}
{{- with .Values.replay }}
{{- if .url }}
replay:
  url: {{ .url | quote }}
  nonce_key: /var/run/countersign/nonce-key/key
  {{- if .username }}
  username: {{ .username | quote }}
  {{- end }}
  {{- if .passwordSecret }}
  password: /var/run/countersign/replay-password/password
  {{- end }}
  {{- if .caConfigMap }}
  ca: /var/run/countersign/replay-ca/ca.crt
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.peps }}
peps:
{{- range . }}
- name: {{ .name | quote }}
  servers: {{ .servers | toJson }}
  {{- if .serviceAccount }}
  service_account: {{ .serviceAccount | quote }}
  {{- else }}
  certificate: {{ .certificate | quote }}
  {{- end }}
{{- end }}
{{- end }}
audiences: {{ .Values.audiences | toJson }}
{{ include "countersign.injectionSettings" . }}
{{- if gt (int .Values.webhook.replicas) 1 }}
drain_seconds: 5
{{- end }}
log_level: {{ .Values.logLevel }}
{{- end -}}

{{/* The sidecar: what the webhook injects, and by which the authority knows it again. The webhook reads the former images and
gives none of them to anybody. */}}
{{- define "countersign.injectionSettings" -}}
injection:
  image: {{ include "countersign.image" . }}
  version: {{ include "countersign.injectionVersion" . }}
  former_images: {{ .Values.injection.formerImages | toJson }}
{{- end -}}

{{/* Another image is another version, also between two of one release: by its version the operator knows which image a pod
was given. */}}
{{- define "countersign.injectionVersion" -}}
{{ .Chart.AppVersion }}-{{ include "countersign.image" . | sha256sum | trunc 8 }}
{{- end -}}

{{/* Images that a signer may have when its pod is created. Former ones too: during an upgrade the webhook of before answers. */}}
{{- define "countersign.signerImages" -}}
{{ prepend .Values.injection.formerImages (include "countersign.image" .) | toJson }}
{{- end -}}
