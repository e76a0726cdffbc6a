// Package oci holds the distribution protocol as values.
//
// A request is parsed once (Parse) and its URL is built only by the inverse
// (Request.URL); an error has one type (Error) and one way onto the wire
// (WriteError); a manifest is its exact bytes with what they say (Manifest).
// The package performs no I/O besides reading a bounded error body and imports
// nothing of dray.
//
// The facts come from the OCI distribution specification 1.1 ("spec" below) and
// from github.com/distribution/distribution/v3, whose route names, error codes,
// media types and name grammar are used as they are.
package oci
