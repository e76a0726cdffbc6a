// Package inventory shows operators the content of the cache as images, and lets them purge, evict
// and pin it. Its answers have the types of admin/api.
//
// Invariants:
//   - The facts say which repository an image belongs to, and the directory of the cache on disk
//     says which content is held. If facts were lost, dray finds images by reading the blobs that
//     could be manifests. The repository of such an image is not known.
//   - Listing does not count as use: the order of eviction stays as it was.
//   - Only content that can be fetched again is purged. Its facts are removed before its bytes, so
//     that a request that comes meanwhile asks the upstream and does not find half an image.
//     Content that is being read stays readable, and content that a push needs stays.
package inventory
