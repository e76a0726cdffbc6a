// Package history stores samples of a few metrics, one a minute. So a page can show what happened
// over time, even before the last restart.
//
// Invariants:
//   - Each day in UTC has a file, to which samples are appended. All files together have at most
//     [MaxBytes], so the oldest files are removed.
//   - Everything here may be lost. A sample that cannot be read ends what is read of its file.
//   - To read a series, memory for the series and for one file is enough.
package history
