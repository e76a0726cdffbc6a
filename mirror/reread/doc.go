// Package reread keeps values that are made from files, and makes them anew when the files change.
package reread
