// Package writer has all requests that write to one repository of an upstream worked on by one
// member of a fleet, whichever member the client has reached.
//
// That member is the repository's writer: the one that was asked first. It has a lease, which it
// renews while a request, an upload, a staged blob, a waiting manifest or a queued push is open.
// Other members pass requests on to it, and stream the bodies. The member that a client has reached
// authenticates the client. The writer decides what the client may do.
//
// Invariants:
//   - A request that was passed on is never passed on again. A member that finds that it is not the
//     writer says so before it reads a byte of the body, and the first member asks again.
//   - A pull that finds its content needs no other member.
//   - Without the store of leases, the writer is the last known one, or else the member that all
//     choose who know the same members.
package writer
