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
package disk
