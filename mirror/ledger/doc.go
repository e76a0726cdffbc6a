// Package ledger stores what the metrics have counted by day, so that it outlives the process.
//
// Invariants:
//   - The ledger adds what a counter has grown by. A counter that has become less has begun again.
//   - Each day is a file of its own. A file that cannot be read or written costs that day alone.
//     Nothing but reports depends on it.
//   - There are at most [MaxDays] files, each with one entry for each upstream.
package ledger
