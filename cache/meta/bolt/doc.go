// Package bolt keeps facts in one bbolt file of this process.
//
// Invariants:
//   - The file is disposable. Whatever is wrong with it at start, short of not
//     being allowed to write there, it is moved aside and a new one begun.
//   - A put costs no fsync. The file is synced every few seconds and on Close; a
//     kill of the process loses nothing, because the kernel has the pages, and a
//     power cut may leave a file whose pages contradict each other. A marker
//     beside the file says that it is in use, so that after anything but a
//     Close the whole file is checked before its first use.
//   - Damage found while running is an error of this and every later operation,
//     not a crash, until the next start.
package bolt
