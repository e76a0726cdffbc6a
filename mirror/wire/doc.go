// Package wire sends and receives bytes over HTTP connections: responses, stall limits, ranges,
// splice, and the gathering of TLS records. It also has the [Server] that accepts connections,
// with certificates that are reloaded when they change.
//
// It knows neither the requests of registries nor their answers: a [Server] serves an
// http.Handler, and a handler answers through a [Response]. Of upstream/oci it only uses ranges
// and the error for an invalid one.
package wire
