// Package queue stores acknowledged pushes until they have been forwarded.
//
// It imports no other package of dray. Its caller passes in two functions: one puts a blob on
// stable storage, and the other forwards a push. Entries contain the bytes of manifests, but the
// package does not parse them.
//
// Invariants:
//   - A push that Add has accepted is on stable storage, with all its Blobs. It leaves the queue
//     only when it has been forwarded, when an operator drops it, or when a client deletes it. It
//     may be forwarded more than once. A push that its registry refuses for good stays in the queue
//     as failed.
//   - Pushes to one repository are forwarded in the order in which they were accepted. So an index
//     is forwarded after its children, and a tag finally points to the image that was pushed last.
//     A failed push is visible to operators and does not block later pushes.
//   - The number of entries is bounded. If Options.MaxBytes is set, the sum of their bytes is
//     bounded, too.
//   - After a failed write, the queue rewrites the journal from memory before it appends another
//     record. So no record follows a torn record.
//   - If the journal says that a push is done, it does not list a push that was done earlier as
//     still to do. Otherwise, the next process could forward the older push again, and so move a
//     tag back to an older image.
package queue
