// Package reread makes values from files, and makes them again when the files change.
package reread
