// Package ledger stores daily counts from the metrics, so that the counts outlive the process.
//
// Invariants:
//   - The ledger adds the growth of each counter. If a counter has become less, it was reset to 0,
//     and its whole value counts as growth.
//   - Each day has a file. If dray cannot read or write it, only that day's counts are lost. Only
//     reports need the counts.
//   - There are at most [MaxDays] files. Each has one entry for each upstream.
package ledger
