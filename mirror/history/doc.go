// Package history stores samples of a few metrics, one a minute. So a page can show their values
// over time, even from before the last restart.
//
// Invariants:
//   - Each day in UTC has a file, to which samples are appended. All files together have at most
//     [MaxBytes], so the oldest files are removed.
//   - Everything here may be lost. Reading a file ends at the first sample that cannot be read.
//   - Reading a series needs memory only for the series and for one file.
package history
