// Package jobs is work in the background about images: verdicts that are put
// beside them, the index of base images, and requests that keep images alive.
//
// Pulls and pushes call the observers of this package. None of them waits.
package jobs
