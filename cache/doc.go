// Package cache gets bytes by digest: from memory, from disk, from a fetch under way, or by
// starting one fetch.
//
// Invariants:
//   - A flight is the one fetch of a digest, however many callers ask for the digest, and for
//     whichever ranges. It belongs to the cache: it does not end with the context of any caller,
//     but it ends when its origin makes no progress. A reader that is slow or leaves does not
//     affect other readers.
//   - A reader that reads from byte 0 never receives the last byte before the digest of the whole
//     is known to match. So wrong bytes always look cut off, never complete.
//   - A pull does not fail because the cache fails: when the disk fails, each reader continues
//     with a fetch of its own, and the failure is counted.
//   - Open returns errors of an origin unchanged. They are not kept for later callers.
//
// A [Cache] consists of parts that share the disk, the log, counters and buffers, and do not know
// the cache itself:
//   - fetcher: sends requests to origins, resumes answers that break off (fetch), and makes
//     readers, including those that bypass the cache (directBytes)
//   - flights: the fetches under way, whose bytes arrive in a growing file; workers fetch a large
//     blob in parts
//   - objects: small objects, such as manifests, in memory and on disk
//   - together: counts uses of blobs that are used together
package cache
