// Command release makes all published files of a version: programs, packages, images, the Helm
// chart, and the files to verify these. `make release` runs it.
//
// Two runs make the same bytes, except for the signature: each file depends only on the sources,
// the toolchain and the certificate authorities that this machine trusts. The only timestamp in the
// files is the time of the commit. The command downloads nothing: run `go mod download` before it.
//
// The command writes the formats (ar, tar, an image layout, CycloneDX) itself, with the standard
// library. A library for packages of all kinds would bring more modules than dray itself has.
package main
