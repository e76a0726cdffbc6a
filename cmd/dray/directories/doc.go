// Package directories prepares the directories of dray at a start: the cache, whose content comes
// from registries, and the state, which exists nowhere else.
//
// Each directory has a file with the number of its format. A program that knows only lower numbers
// does not touch the directory, and says what to do. The number changes when an older program would
// lose or misread something. The files also name the other directory, so that a directory that is
// not mounted, or a setting that was dropped, is found before content is given up.
//
// The queue, the lists of hosted repositories and the pins are moved out of the cache's directory,
// where they are without a setting for the state, if the two directories differ.
package directories
