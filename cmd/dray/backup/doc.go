// Package backup saves the content that no registry has in one file, and restores it: the queue of
// pushes, the hosted repositories, the blobs that both need, and the pins.
//
// The file is a tar archive. It begins with the number of its format and ends with the numbers of
// its blobs and files. Restore fails without this last entry, so it restores no truncated archive.
// The blobs come before the files that name them.
package backup
