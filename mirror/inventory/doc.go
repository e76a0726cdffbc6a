// Package inventory shows those who look after dray what its cache holds, as the
// images that it belongs to, and takes away or keeps what they name. Its answers are the types
// of admin/api.
//
// Invariants:
//   - Facts say which repository an image belongs to, the directory says what is held.
//     Where facts were lost, images are found by reading what could be a manifest, and
//     belong to nobody known.
//   - Looking counts as no use: the order of eviction stays as it was.
//   - What is taken away is at worst fetched again. Facts go first and bytes second, so
//     that nobody is told of what is no longer there; what is being read stays readable, and
//     what a push needs stays.
package inventory
