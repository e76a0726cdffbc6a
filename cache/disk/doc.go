// Package disk keeps a directory of verified blobs that survives kill -9 and
// never exceeds its quota.
//
// Invariants:
//   - A file below blobs/ has the digest its name says and was checked, with its
//     length, by [Ingest.Commit] before one rename put it there. Unfinished files live
//     in ingest/ only, where no reader looks, and are removed by [Open], but for those
//     that are kept for [Dir.Recover].
//   - The directory is the index: presence, size and last use (the modification
//     time) are read from it, so no database can disagree with it.
//   - A blob without any write permission is known to be on stable storage. One
//     that still has it when the directory is opened comes from an unclean stop and
//     is read and verified before its first use.
//   - The blocks of blobs, of reservations and of files about to be unlinked never
//     exceed Options.MaxBytes. What is open or pinned is never evicted. What operators
//     pin is named by files in pins/.
//   - A blob that rots is moved to quarantine/, where no reader looks, and fetched
//     anew when it is asked for.
//   - No file is touched while account.mu is held.
//
// A [Dir] holds parts, and each part knows only those before it:
//   - tree: the directory as the file system has it
//   - account: what is held, in which order it is evicted (policy), and how many bytes it takes
//   - scanner: reads the directory into the account, once
//   - evictor: makes room, says what it would evict, unlinks
//   - syncer: makes new blobs durable in groups and marks their files clean
//   - checker: verifies what an unclean stop left
//   - quarantine and scrubber: verify again what is held, and keep aside what has rotted
//   - contents: what callers read and remove
//   - ingests: files on their way to become blobs, also those that outlive the process
//   - pins: what operators keep
package disk
