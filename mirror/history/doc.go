// Package history stores what a few metrics said, minute by minute, so that a page can show what
// happened over time, also before the last restart.
//
// Invariants:
//   - Each day in UTC is a file of its own, to which samples are appended. All files together have
//     at most [MaxBytes]: the oldest give way.
//   - Everything here may be lost. A sample that cannot be read costs the rest of its day.
//   - Reading a series needs memory for the series alone, and for one file.
package history
