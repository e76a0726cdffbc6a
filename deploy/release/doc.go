// Command release makes everything that is published of a version: programs, packages, images, the
// Helm chart, and what one needs to check them. `make release` runs it.
//
// Every file but the signature depends only on the sources, the toolchain and the certificate
// authorities that this machine trusts: two runs make the same bytes. The only time in the files is
// that of the commit. The command downloads nothing: run `go mod download` before it.
//
// The formats (ar, tar, an image layout, CycloneDX) are written here, with the standard library. A
// library for packages of all kinds would bring more modules than dray itself has.
package main
