// Package pulls counts the images that clients pull, for metrics and for CloudWatch. The caller of
// [Pulls.Inc] names the upstream, the repository and the reference of each pull. The package
// imports nothing of dray.
//
// Invariants:
//   - A pull is one GET of a manifest by a client, answered with a status of 2xx. HEAD requests,
//     and requests that dray itself sends, do not count. The pull of one platform of an index
//     counts twice, as at a registry: the client gets the index and the platform's manifest.
//   - The number of series is bounded, whatever clients ask for. Unless more detail is configured,
//     the package counts pulls per upstream only.
package pulls
