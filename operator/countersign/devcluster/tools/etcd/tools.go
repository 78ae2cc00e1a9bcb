//go:build tools

// Package tools pins etcd by hash.
package tools

import _ "go.etcd.io/etcd/server/v3"
