// Package inventory shows operators the content of the cache as images, and purges, evicts and
// pins it for them. Its answers are the types of admin/api.
//
// Invariants:
//   - Facts say which repository an image belongs to, the directory says which content is held.
//     If facts were lost, images are found by reading the blobs that could be manifests, and
//     belong to no known repository.
//   - Listing does not count as use: the order of eviction stays as it was.
//   - Purged content can be fetched again. Facts are removed before bytes, so that no fact is
//     about content that is gone. Content that is being read stays readable, and content that a
//     push needs stays.
package inventory
