// Package bolt keeps facts in one bbolt file of this process.
//
// Invariants:
//   - The file is disposable. If its content is damaged when it is opened, the file is moved aside
//     and a new one is created. If the system cannot open the file, the file stays where it is.
//     Open then fails if the cause is lasting, such as a lack of permission. After another cause,
//     such as a full disk, the store tries again to open the file.
//   - A put costs no fsync. The file is synced every few seconds and on Close. A killed process
//     loses nothing, because the kernel has the pages. A power cut may leave a file whose pages
//     contradict each other. A marker beside the file says that the file is in use. If the marker
//     is still there at the next start, the whole file is checked before its first use.
//   - Damage that is found later does not crash the process. The operation that finds the damage
//     fails, and so do all later operations until the next start.
package bolt
