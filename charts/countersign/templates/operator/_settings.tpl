{{/* The operator's settings: operator/countersign/controller/settings.py. */}}
{{- define "countersign.operatorSettings" -}}
namespace: {{ .Release.Namespace }}
cluster: {{ .Values.clusterName }}
webhook_url: {{ include "countersign.webhookURL" . }}
authority_url: {{ include "countersign.authorityURL" . }}
webhook_names:
{{ include "countersign.serviceNames" (dict "root" . "process" "webhook") }}
authority_names:
{{ include "countersign.serviceNames" (dict "root" . "process" "authority") }}
certificates:
  source: {{ .Values.certificates.source }}
  webhook_secret: {{ include "countersign.servingSecret" (dict "root" . "process" "webhook") }}
  authority_secret: {{ include "countersign.servingSecret" (dict "root" . "process" "authority") }}
injection:
  image: {{ include "countersign.image" . }}
  version: {{ include "countersign.injectionVersion" . }}
audiences: {{ .Values.audiences | toJson }}
nodes: {{ .Values.node.enabled }}
log_level: {{ .Values.logLevel }}
{{- end -}}
