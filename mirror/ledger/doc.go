// Package ledger stores the counts that metrics reach on each day, so that the counts outlive the
// process.
//
// Invariants:
//   - The ledger adds the growth of each counter. A counter that has become less began again.
//   - Each day has a file. If dray cannot read or write it, only that day's counts are lost. Only
//     reports need the counts.
//   - There are at most [MaxDays] files. Each has one entry for each upstream.
package ledger
