//go:build tools

// Package tools pins Open Policy Agent by hash; only `make bench` wants it.
package tools

import _ "github.com/open-policy-agent/opa"
