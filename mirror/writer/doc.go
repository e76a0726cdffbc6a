// Package writer lets one member of a fleet work on all requests that write to one repository of an
// upstream, whichever member the client has reached.
//
// The member that works on these requests is the repository's writer. A member that gets such a
// request while there is no writer becomes the writer. The writer has a lease, which it renews
// while a request, an upload, a staged blob, a waiting manifest or a queued push is open. Other
// members pass requests on to the writer, and stream the bodies. The member that a client has
// reached authenticates the client. The writer decides what the client may do.
//
// Invariants:
//   - A member never passes on a request that it got from another member. If it is not the writer,
//     its answer says so, before it reads a byte of the body. The other member then passes the
//     request on to the writer.
//   - A member that has the content of a pull can answer it even if no other member answers.
//   - While the store of leases does not answer, the writer is the last known writer. If none is
//     known, each member computes the writer from its list of the members. Members with equal lists
//     get the same result.
package writer
