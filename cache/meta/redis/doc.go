// Package redis keeps facts in Redis, or in a server that speaks its protocol, for several mirrors
// to share.
//
// Invariants:
//   - Redis is disposable: it may be flushed, evict keys, fail over with losses or be unreachable.
//     It needs no persistence, and no more memory than the facts take. If Redis evicts keys, its
//     policy should be volatile-ttl. An epoch hides facts about a tag that are older than its last
//     push. Epochs have the longest TTL, so with this policy Redis evicts these facts before the
//     epoch.
//   - This package does not retry, wait for long or hide a failure. The wrappers [meta.Cached] and
//     [meta.Guarded] make failures harmless.
//   - All keys have one prefix, so that other programs can use the same Redis. Values under other
//     keys are neither read nor changed.
package redis
