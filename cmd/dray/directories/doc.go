// Package directories prepares the two directories of dray when it starts: the cache, whose content
// comes from registries, and the state, which exists nowhere else.
//
// Each directory has a file with the number of its format. A program that can read only lower
// numbers leaves the directory unchanged, and says what to do. A new version of dray writes a
// higher number if older versions would lose or misread something in the directory.
//
// The file of the cache also names the directory of the state. If the configuration names another
// directory for the state, and the former one has queued pushes or hosted repositories, dray does
// not start: it would not forward these pushes or serve these repositories. dray also does not
// start if one of the two directories was used before and the other directory is empty: probably,
// the empty directory is not mounted. But the cache may be empty if the state has no such pushes or
// repositories.
//
// If no directory is set for the state, the cache's directory has the queue, the lists of hosted
// repositories and the pins. Once another directory is set, dray moves them there.
package directories
