// Package bolt keeps facts in one bbolt file of this process.
//
// Invariants:
//   - The file is disposable. If anything is wrong with it at the start, except a lack of
//     permission to write there, it is moved aside and a new one is created.
//   - A put costs no fsync. The file is synced every few seconds and on Close. A kill of the
//     process loses nothing, because the kernel has the pages. A power cut may leave a file whose
//     pages contradict each other. A marker beside the file says that it is in use. After
//     anything but a Close the whole file is checked before its first use.
//   - Damage found while running is an error of this and every later operation until the next
//     start, not a crash.
package bolt
