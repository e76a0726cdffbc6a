// Package reload lets a running dray take over another configuration.
//
// Invariants:
//   - One reload runs at a time, and none after [Reloader.Stop].
//   - A configuration is applied as a whole, as far as the running process can: after an error,
//     everything is as it was.
//   - Whatever a reload does not apply is named.
package reload
