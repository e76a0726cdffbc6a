// Package backup saves, in one file, the content that no registry has, and restores it: the queue
// of pushes, the hosted repositories, the blobs that these pushes and repositories need, and the
// pins.
//
// The file is a tar archive. It begins with the number of its format and ends with the counts of
// its blobs and files. Restore fails without this last entry, so it restores no truncated archive.
// The blobs come before the files that name them.
package backup
