// Package redis keeps facts in Redis, or a server that speaks its protocol, for several mirrors
// to share.
//
// Invariants:
//   - Redis is disposable: it may be flushed, evict keys, fail over with losses or be unreachable.
//     It needs no persistence, and no more memory than the facts take. If it evicts keys, the
//     policy should be volatile-ttl: the epochs that hide older facts about a pushed tag live
//     longest and so are evicted last.
//   - This package does not retry, wait for long or hide a failure. The wrappers [meta.Cached]
//     and [meta.Guarded] make failures harmless.
//   - All keys have one prefix, so that other programs can use the same Redis. Values under other
//     keys are neither read nor changed.
package redis
