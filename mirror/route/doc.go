// Package route maps a request to an upstream and a repository, using only the request and the
// configuration. It refuses names that the configuration does not let clients use. It does no I/O,
// refers to upstreams by name, and imports nothing of dray except the protocol (upstream/oci) and
// patterns of names.
package route
