// Package ledger stores daily counts from the metrics, so that the counts outlive the process.
//
// Invariants:
//   - The ledger adds the growth of each counter to the counts of the day. If the value of a
//     counter has fallen, the counter was reset to 0, and the whole value counts as growth.
//   - Each day has a file. If dray cannot read a file, or never manages to write it, only the
//     counts of that day are lost. Only reports need the counts.
//   - There are at most [MaxDays] files. Each has one entry for each upstream.
package ledger
