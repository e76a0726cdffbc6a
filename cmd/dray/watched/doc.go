// Package watched reads passwords and authorities of upstreams from files, and reads them again
// when the files change.
package watched
