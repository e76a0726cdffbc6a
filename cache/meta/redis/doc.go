// Package redis stores what several mirrors share: facts, and the leases and rates of a fleet. It
// uses Redis, or a server that speaks its protocol.
//
// Invariants:
//   - Redis is disposable: it may be flushed, evict keys, fail over with losses or be unreachable.
//     It needs no persistence, and no more memory than the facts take. If Redis evicts keys, its
//     policy should be volatile-ttl. An epoch hides facts about a tag that are older than its last
//     push, so it must outlive them. It does under this policy, because epochs have the longest
//     TTL.
//   - This package does not retry, wait for long or hide a failure. The wrappers [meta.Cached] and
//     [meta.Guarded] make failures harmless.
//   - All keys have one prefix, so that other programs can use the same Redis. Values under other
//     keys are neither read nor changed.
package redis
