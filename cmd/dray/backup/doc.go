// Package backup saves in one file, and restores, what no registry has: the queue of pushes, the
// hosted repositories, the blobs that both need, and the pins.
//
// The file is a tar archive. It begins with the number of its format and ends with the numbers of
// its blobs and files. So a truncated archive is never restored. The blobs come before the files
// that name them.
package backup
