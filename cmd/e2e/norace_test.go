//go:build !race

package e2e

// raceEnabled has the binaries under test built with the race detector, where the tests are.
const raceEnabled = false
