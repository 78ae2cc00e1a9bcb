{{/* Names are fixed, not derived from the release: the design gives them, and one cluster has one Countersign. */}}

{{- define "countersign.labels" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of one process, by which its Service and NetworkPolicy find it. Call with (dict "root" $ "process" "webhook"). */}}
{{- define "countersign.selector" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .process }}
{{- end -}}

{{- define "countersign.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The user as whom a process speaks to the API server. Call with (dict "root" $ "process" "authority"). */}}
{{- define "countersign.username" -}}
system:serviceaccount:{{ .root.Release.Namespace }}:countersign-{{ .process }}
{{- end -}}

{{- define "countersign.webhookURL" -}}
https://countersign-webhook.{{ .Release.Namespace }}.svc:8443
{{- end -}}

{{- define "countersign.authorityURL" -}}
https://countersign-authority.{{ .Release.Namespace }}.svc:8443
{{- end -}}

{{/* The names in a serving certificate. Call with (dict "root" $ "process" "webhook"). */}}
{{- define "countersign.serviceNames" -}}
- countersign-{{ .process }}.{{ .root.Release.Namespace }}.svc
- countersign-{{ .process }}.{{ .root.Release.Namespace }}.svc.cluster.local
{{- end -}}

{{/* Settings never change under their name: the ConfigMap is immutable and called after its content, so that a change is a
roll-out, and that the right to write ConfigMaps here is not the right to rewrite a process's settings.
Call with (dict "root" $ "process" "webhook" "settings" TEXT). */}}
{{- define "countersign.settingsName" -}}
countersign-{{ .process }}-{{ .settings | sha256sum | trunc 10 }}
{{- end -}}

{{- define "countersign.settingsMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "countersign.settingsName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "countersign.labels" .root | nindent 4 }}
immutable: true
data:
  {{ .process }}.yaml: |
    {{- .settings | nindent 4 }}
{{- end -}}

{{- define "countersign.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "countersign.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{/* Alive is that the process answers; ready is that it can do its work. */}}
{{- define "countersign.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 3
  timeoutSeconds: 5
{{- end -}}

{{/* Annotations and labels of a process's pods; its selector cannot be replaced. Call with (dict "root" $ "process" "webhook"
"common" VALUES), where VALUES are those that hold for several processes: .Values, or an empty dict. */}}
{{- define "countersign.podMetadata" -}}
{{- $own := index .root.Values .process -}}
labels:
  {{- $selector := include "countersign.selector" . | fromYaml }}
  {{- merge $selector $own.podLabels (.common.podLabels | default dict) | toYaml | nindent 2 }}
{{- with merge (dict) $own.podAnnotations (.common.podAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a process's pods may run: what its own values say, else what the common ones do. Call as countersign.podMetadata. */}}
{{- define "countersign.placement" -}}
{{- $own := index .root.Values .process -}}
{{- $common := .common -}}
{{- range $field := list "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with index $own $field | default (index $common $field) }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "countersign.selector" . | fromYaml)) }}
{{- with $own.topologySpreadConstraints | default $common.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
- {{ merge (deepCopy .) $selector | toJson }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the pods of operator, webhook and authority have in common, above their containers. No service links: an environment
variable that kubelet makes from a Service's name could be read as a setting. */}}
{{- define "countersign.podCommon" -}}
serviceAccountName: countersign-{{ .process }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- include "countersign.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- include "countersign.placement" . }}
{{- end -}}

{{/* The container of a process up to its ports. Call with (dict "root" $ "process" "webhook"). */}}
{{- define "countersign.container" -}}
name: {{ .process }}
image: {{ include "countersign.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [countersign]
args: [{{ .process }}, --config, /etc/countersign/{{ .process }}.yaml]
securityContext:
  {{- include "countersign.containerSecurity" .root | nindent 2 }}
{{- with (index .root.Values .process).resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{ include "countersign.probes" .root }}
{{- end -}}

{{/* Where a process keeps what must outlive its pod. Call with (dict "root" $ "process" "authority"). */}}
{{- define "countersign.stateVolume" -}}
{{- $storage := (index .root.Values .process).storage -}}
{{- if eq $storage.type "PersistentVolumeClaim" -}}
persistentVolumeClaim: {claimName: {{ $storage.existingClaim | default (printf "countersign-%s" .process) }}}
{{- else -}}
emptyDir: {}
{{- end -}}
{{- end -}}

{{/* Kept when the release is uninstalled: what was issued and decided is not forgotten by accident. */}}
{{- define "countersign.claim" -}}
{{- $storage := (index .root.Values .process).storage -}}
{{- if and (eq $storage.type "PersistentVolumeClaim") (not $storage.existingClaim) -}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: countersign-{{ .process }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "countersign.labels" .root | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with $storage.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests: {storage: {{ $storage.size }}}
{{- end -}}
{{- end -}}

{{/* With several replicas, how many of them a drain may take at a time; one that is not Ready anyway may always go. */}}
{{- define "countersign.disruptionBudget" -}}
{{- $values := .root.Values.podDisruptionBudget -}}
{{- if and $values.enabled (gt (int (index .root.Values .process).replicas) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: countersign-{{ .process }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "countersign.labels" .root | nindent 4 }}
spec:
  maxUnavailable: {{ $values.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "countersign.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The Secret with the serving certificate of webhook or authority. */}}
{{- define "countersign.servingSecret" -}}
{{- if eq .root.Values.certificates.source "ExistingSecret" -}}
{{ index .root.Values.certificates.existingSecret .process }}
{{- else -}}
countersign-{{ .process }}-tls
{{- end -}}
{{- end -}}

{{/* The head of a NetworkPolicy, and where a process may connect to: DNS and the API server, and what is said as "more".
Call with (dict "root" $ "process" "webhook" "more" (list RULE…)). */}}
{{- define "countersign.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: countersign-{{ .process }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "countersign.labels" .root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "countersign.selector" . | nindent 6 }}
  policyTypes: [Ingress{{ if .root.Values.networkPolicy.egress.enabled }}, Egress{{ end }}]
  {{- if .root.Values.networkPolicy.egress.enabled }}
  egress:
  - ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  - ports:
    {{- range .root.Values.networkPolicy.egress.apiServerPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- range .more }}
  - {{ toJson . }}
  {{- end }}
  {{- end }}
{{- end -}}
