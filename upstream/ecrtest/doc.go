// Package ecrtest is an Amazon ECR that behaves, and misbehaves, like the real one, for tests,
// demos and benchmarks.
//
// Invariants:
//   - It is an oracle. It shares no code with what it judges: nothing of this module is imported here, and every
//     request is parsed and every answer rendered by its own code.
//   - What a registry does is data: Quirks hold the well-attested manners of a kind of registry, Switches hold one
//     field per manner of ECR that nobody could verify, each usable in both positions.
//   - Blob bytes live in files below one directory and are hashed while they arrive; everything else is in memory and
//     is gone after Close.
//   - New starts nothing. Handlers may be mounted anywhere; Listen binds the four of them and Running.Run serves.
//   - One mutex guards the registry's state and is never held over I/O. Faults and the journal have their own.
package ecrtest
