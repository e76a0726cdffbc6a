// Package directories prepares the directories of dray at a start: the cache, whose content comes
// from registries, and the state, which exists nowhere else.
//
// Each directory has a file with the number of its format. A program that knows only lower numbers
// does not touch the directory, and says what to do. The number changes when an older program would
// lose or misread something.
//
// The file of the cache also names the directory of the state. If this is not the configured one,
// and has queued pushes or hosted repositories, dray does not start: the setting was changed or
// dropped. Nor does dray start if one of the two directories has been used and the other is empty,
// because then the other is probably not mounted.
//
// Without a setting for the state, the queue, the lists of hosted repositories and the pins are in
// the cache's directory. When the setting names another directory, they are moved there.
package directories
