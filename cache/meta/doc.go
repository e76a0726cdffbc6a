// Package meta keeps small facts about images. Examples are the digest of a tag, the repositories
// under which dray may serve a digest, and the content that an upstream has.
//
// Invariants:
//   - Every fact may be lost at any moment. A lost fact costs a question to the upstream or a
//     repeated check, but never leads to a wrong answer or a failed pull.
//   - Neither bytes of images nor secrets are kept here.
//   - Keys are made in keys.go and nowhere else. Values are written and read only by the facades
//     [Tags], [Absences], [Visibility], [Presence], [LastPulls], [Transit], [Verdicts] and
//     [BaseImages]. A value that cannot be decoded is counted and treated as not found.
//   - The stores in bolt and redis do not interpret keys or values. Wrappers make such a store fast
//     ([Cached]), and its failures harmless ([Guarded]).
package meta
