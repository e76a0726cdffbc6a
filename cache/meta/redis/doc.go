// Package redis keeps facts in Redis, or what speaks its protocol, for several
// mirrors to share.
//
// Invariants:
//   - Redis is disposable: it may be flushed, evict, fail over with losses or be
//     away. It needs neither persistence nor memory for more than the facts. If
//     it evicts, let it be by volatile-ttl: what makes older facts about a pushed
//     tag invisible lives longest and so goes last.
//   - Nothing here retries, waits for long or hides a failure; that is the
//     business of the wrappers around a store.
//   - All keys carry one prefix, so that a Redis can be shared with others. No
//     other keys are read or changed.
package redis
