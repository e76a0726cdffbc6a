// Package cache gets bytes by digest: from memory, from disk, from a fetch under way, or by
// starting one fetch.
//
// Invariants:
//   - There is one flight per digest, however many callers ask and for whichever ranges. It
//     belongs to the cache: its context is independent of every caller's and is bounded by lack
//     of progress. A slow or leaving reader does not affect another.
//   - A reader that reads from byte 0 never receives the last byte before the digest of the whole
//     is known to match. So wrong bytes always look cut off, never complete.
//   - The cache may fail, the pull may not: when the disk fails, each reader continues with a
//     fetch of its own, and the failure is counted.
//   - Errors of an origin are returned unchanged and never remembered.
//
// A [Cache] consists of parts that share the disk, the log, counters and buffers, and do not know
// the cache itself:
//   - fetcher: sends requests to origins, resumes those that break off (fetch), and makes
//     readers, including those that bypass the cache (directBytes)
//   - flights: the fetches under way, whose bytes arrive in a growing file; workers fetch a large
//     blob in parts
//   - objects: small objects, such as manifests, in memory and on disk
//   - together: counts uses of blobs that are used together
package cache
