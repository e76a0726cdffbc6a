// Package meta keeps small facts about images: what a tag points to, which repository may see
// which digest, and which content the target of pushes already holds.
//
// Invariants:
//   - Every fact may be lost at any moment. A lost fact costs a question to the upstream, never a
//     wrong answer and never a pull.
//   - Bytes of images are never kept here, and neither are secrets.
//   - Keys are made in keys.go and nowhere else. Values are written and read only by the facades
//     [Tags], [Absences], [Visibility], [Presence], [LastPulls], [Verdicts] and [BaseImages]. A
//     value that cannot be read is counted and treated as not found.
//   - A [Store] knows nothing about facts. Wrappers make a store fast ([Cached]) and harmless
//     when it fails ([Guarded]).
package meta
