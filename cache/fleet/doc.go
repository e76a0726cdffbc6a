// Package fleet lets mirrors that share a Redis fetch each blob only once from its registry.
//
// Each mirror is a member. A member that begins to fetch a blob takes the lease of this blob (see
// [Leases]). The other members find the lease. They read the bytes from the holder, or from each
// other, while these bytes are still arriving.
//
// Invariants:
//   - No pull needs the fleet. If the store of leases or another member gives no answer, a member
//     asks the registry itself, from the first byte that it lacks.
//   - No member trusts the bytes of another member. The receiver verifies the digest. Unless
//     the receiver already knows that the repository has the blob, it asks the registry to confirm
//     this.
//   - If two members fetch a blob at the same time, the registry sends it twice. The result is
//     still right.
package fleet
