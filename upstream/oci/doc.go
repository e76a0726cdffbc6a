// Package oci has the types of the distribution protocol: requests, references, errors, manifests.
//
// Parse parses a request. Its inverse, Request.URL, builds the URL of a request. All errors have
// one type (Error), and one function writes them (WriteError). A Manifest has its exact bytes as
// well as its parsed content. The package does no I/O except on the bodies of the HTTP messages
// that it is given, and imports nothing of dray.
//
// The package follows the OCI distribution specification 1.1 ("spec" in its comments) and
// github.com/distribution/distribution/v3. It uses the route names, error codes, media types and
// name grammar of distribution.
package oci
