// Package wire is how bytes leave a connection: responses, pacing, ranges, splice, the gathering of
// TLS records; and how a connection comes about: a [Server] with certificates that are read again
// when they change.
//
// It knows neither the requests of registries nor their answers: a [Server] serves an http.Handler,
// and a handler answers through a [Response]. Of upstream/oci it uses ranges and the error for one
// that does not exist.
package wire
