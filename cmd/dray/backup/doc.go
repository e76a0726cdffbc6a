// Package backup copies what exists nowhere else into one file, and back: the queue of pushes, the
// hosted repositories, and the pins, with the blobs that the first two need. A registry has
// everything else.
//
// The file is a tar archive. It begins with its format and ends with the number of its entries, so
// a truncated file is never restored. The blobs come before the lists that name them.
package backup
