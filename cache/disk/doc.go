// Package disk manages a directory of verified blobs that survives kill -9 and keeps to a quota.
//
// Invariants:
//   - A file gets into blobs/ only if it has the digest that its name says: [Ingest.Commit] checks
//     digest and length before it moves the file there by one rename. Unfinished files are only in
//     ingest/, where nobody looks for blobs. [Open] removes unfinished files, except files that are
//     kept for [Dir.Recover].
//   - No database can disagree with the directory, because there is none. The files alone say which
//     blobs exist, how large they are, and when they were last used (the modification time).
//   - A blob file without any write permission is known to be on stable storage. A file that still
//     has write permission when the directory is opened comes from an unclean stop. It is read and
//     verified before its first use.
//   - No new blob makes the directory larger than Options.MaxBytes, counted in whole blocks. If the
//     directory is larger when it is opened, because MaxBytes was lowered, [Dir.Run] evicts blobs.
//     MaxBytes covers blobs (also in quarantine/), files that are about to be unlinked, and the
//     space reserved for unfinished files. A blob that is open, retained or pinned is never
//     evicted. The files in pins/ name the blobs that operators pin.
//   - A blob whose bytes have changed on disk is moved to quarantine/, where no reader looks. It is
//     fetched again when a client asks for it.
//   - No operation on a file takes place while account.mu is held.
//
// A [Dir] consists of parts. Each part uses only the parts above it in this list:
//   - tree: the files and subdirectories on disk
//   - account: the held blobs, the order in which they are evicted (policy), and the bytes that
//     they use
//   - scanner: lists the directory once, and puts the blobs into the account
//   - evictor: makes room, plans evictions, unlinks files
//   - syncer: makes new blobs durable in groups and removes the write permission of their files
//   - checker: verifies the blobs that an unclean stop may have damaged
//   - quarantine and scrubber: verify held blobs again, and move rotten blobs aside
//   - contents: the methods by which callers read and remove blobs
//   - ingests: files that are to become blobs, including files that outlive the process
//   - pins: the blobs that operators keep
package disk
