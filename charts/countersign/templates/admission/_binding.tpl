{{/* A policy that denies, everywhere it matches. Call with (dict "root" $ "name" "countersign-pod"). */}}
{{- define "countersign.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "countersign.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end -}}
