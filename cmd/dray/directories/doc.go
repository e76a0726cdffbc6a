// Package directories prepares the two directories of dray when it starts. The content of the cache
// comes from registries. The state exists nowhere else.
//
// Each directory has a file with the number of its format. A program that knows only lower numbers
// does not touch the directory, and says what to do. The number grows when an older program would
// lose or misread something.
//
// The file of the cache also names the directory of the state. If the configuration names another
// directory, and the former one has queued pushes or hosted repositories, dray does not start,
// because it would forget them. dray also does not start if one of the two directories was used
// before and the other is empty. The empty one is then probably not mounted.
//
// If no directory is set for the state, the queue, the lists of hosted repositories and the pins
// are in the cache's directory. Once another directory is set, dray moves them there.
package directories
