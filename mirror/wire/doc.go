// Package wire sends and receives bytes over HTTP connections: responses, stall limits, ranges,
// splice, and the gathering of TLS records. It also has the [Server] that accepts connections,
// with certificates that are reloaded when they change.
//
// Nothing here depends on what the requests and answers of registries mean: a [Server] serves an
// http.Handler, and a handler answers through a [Response]. The package uses upstream/oci only for
// ranges, and for the error about an invalid range.
package wire
