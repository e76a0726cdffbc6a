// Package cache gets bytes by digest: from memory, from disk, from a flight under
// way, or by starting one fetch.
//
// Invariants:
//   - One flight per digest, whoever asks and for whichever range. It belongs to the
//     cache: its context is detached from every caller's and bounded by lack of
//     progress, and no reader, slow or leaving, affects another.
//   - A reader that reads from byte 0 never receives the last byte before the digest
//     of the whole is known to match, so wrong bytes always look cut off, never complete.
//   - The cache may fail, the pull may not: when the disk does, each reader goes on
//     with a fetch of its own, and the failure is counted.
//   - Errors of an origin are handed on as they are and never remembered.
//
// A [Cache] holds parts that share the disk, the log, counters and buffers, and do not know
// the cache itself:
//   - fetcher: asks origins, resumes what breaks off (fetch), and makes readers, also of bytes
//     that are passed through (directBytes)
//   - flights: the fetches under way, whose bytes arrive in a growing file; workers fetch large
//     blobs in parts
//   - objects: small ones, such as manifests, in memory over the disk
//   - together: counts uses of blobs that are used together
package cache
