// Package wire is how bytes leave: responses, pacing, ranges, splice, the gathering of TLS records,
// certificates that are read again. It knows neither the requests of registries nor their answers:
// a [Server] serves an http.Handler, and a handler answers through a [Response].
package wire
