// Package watched reads secrets and certificate authorities from files, and reads them again when
// the files change.
package watched
