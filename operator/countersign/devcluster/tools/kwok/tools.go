//go:build tools

// Package tools holds kwok, which plays the kubelets of thousands of nodes, at exactly the versions in go.mod and go.sum.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
