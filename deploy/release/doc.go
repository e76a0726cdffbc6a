// Command release makes everything that is published of a version: programs, packages, images, and
// what one needs to check them. `make release` runs it.
//
// Every file but the signature depends only on the sources, the toolchain and the authorities that
// this machine trusts: two runs make the same bytes. There is no clock in them but the time of the
// commit, and nothing is downloaded but by `go mod download`.
//
// The formats (ar, tar, an image layout, CycloneDX) are written here, with the standard library. A
// library for packages of all kinds would bring more modules than dray itself has.
package main
