// Package route decides which upstream and repository a request means, from the request and the
// configuration alone. It does no I/O, refers to upstreams by their names, and imports nothing of
// dray but the protocol (upstream/oci).
package route
