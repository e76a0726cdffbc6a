// Package pulls counts the images that clients pull, for metrics and for CloudWatch. It is told of
// a pull by names, and imports nothing of dray.
//
// Invariants:
//   - A pull is one GET of a manifest by a client that was answered 2xx. A HEAD
//     is none, nor is what the mirror itself asks for; a pull of a platform of
//     an index counts twice, as it does at a registry.
//   - The number of series is bounded whatever clients ask for. Only the count
//     by upstream exists unless more detail is asked for.
package pulls
