// Package queue stores pushes that were acknowledged before they were forwarded, until they are
// forwarded.
//
// It imports nothing of dray. The functions that make a blob durable and forward a push are
// passed in. Entries contain the bytes of manifests, which the package does not read.
//
// Invariants:
//   - A push that Add has accepted is on stable storage, with all blobs that it needs. It leaves
//     the queue only when it has been forwarded, at least once, or when an operator drops it or a
//     client deletes it. A push that its registry refuses for good stays in the queue as failed.
//   - Pushes to one repository are forwarded in the order in which they were accepted, so that an
//     index follows its children and a tag means the last push in the end. A refused push is
//     visible to operators and does not block later pushes.
//   - Entries and bytes are bounded.
//   - The journal is rewritten from memory whenever a write to it fails. So no record follows a
//     torn one, and no record says that a push is done while an older push, done before it, still
//     looks pending.
package queue
