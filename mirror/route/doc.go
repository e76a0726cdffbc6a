// Package route maps a request to an upstream and a repository, using only the request and the
// configuration. It does no I/O, refers to upstreams by name, and imports nothing of dray except
// the protocol (upstream/oci).
package route
