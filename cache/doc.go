// Package cache gets bytes by digest: from memory, from disk, from a fetch under way, or from a
// fetch that it starts.
//
// Invariants:
//   - A flight is the one fetch of a digest. All callers share it, whatever ranges they ask for. A
//     flight belongs to the cache and does not end with the context of a caller. It ends early if
//     its origin makes no progress, or if all readers have left and [Abandon] allows the end. A
//     reader that is slow or leaves does not affect other readers.
//   - A reader that reads from byte 0 receives the last byte only when the digest of the whole blob
//     is known to match. So wrong bytes always look cut off to such a reader, never complete.
//   - A failure of the cache never makes a pull fail: when the disk fails, each reader continues
//     with a fetch of its own, and the failure is counted.
//   - Open returns errors of an origin unchanged. After an error, the next call of Open asks its
//     origin again.
//
// A [Cache] consists of these parts, which share the disk, the log, counters and buffers:
//   - fetcher: sends requests to origins, resumes answers that break off (fetch), and makes
//     readers, including readers that bypass the cache (directBytes)
//   - flights: the fetches under way, whose bytes arrive in a growing file; workers fetch a large
//     blob in parts
//   - objects: small objects, such as manifests, in memory and on disk
//   - together: counts uses of blobs that clients need together, such as a manifest and its layers
package cache
