// Package fleet lets mirrors that share a Redis fetch a blob from its registry once.
//
// Each mirror is a member. A member that begins to fetch a blob takes its lease (see [Leases]). The
// others find the lease, and read the bytes from that member while they arrive there.
//
// Invariants:
//   - No pull needs the fleet. If the store of leases or a member gives no answer, a member asks
//     the registry itself, from the first byte that it lacks.
//   - A member vouches for nothing. Its bytes say neither which repository has them, nor that they
//     are right. The receiver compares the digest, and has the registry confirm that the repository
//     has the blob.
//   - Two fetches of a blob at a time cost bytes, and are never wrong.
package fleet
