// Package reload makes a running dray use another configuration.
//
// Invariants:
//   - One reload runs at a time, and none after [Reloader.Stop].
//   - A reload applies all changes that the running process can apply. After an error, it has
//     applied none.
//   - A reload names the keys whose new values it does not apply.
package reload
