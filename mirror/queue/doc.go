// Package queue keeps pushes that were acknowledged before they were forwarded, until they are.
//
// It imports nothing of dray. Functions that it is given make a blob durable and forward a push;
// its entries carry the bytes of manifests, which it does not read.
//
// Invariants:
//   - What Add has accepted is on stable storage, with all blobs that it needs, and is forwarded at least once, or refused
//     by its registry for good, or dropped by hand, or deleted by a client. Nothing else removes it.
//   - Pushes to one repository are forwarded in the order in which they were accepted, so that an index follows its
//     children and a tag ends where it was pushed last. A refused one stays, seen by everybody, and holds nobody up.
//   - Entries and bytes are bounded.
//   - The journal is rewritten from memory whenever a write to it fails, so that no record follows a torn one, and none says
//     that a push is done while an older one, done before it, is still to be found.
package queue
