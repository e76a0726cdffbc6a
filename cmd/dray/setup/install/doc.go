// Package install changes files and undoes the changes. It records the content that it wrote and
// the former content. So it can replace or undo its changes even if somebody has edited other lines
// of these files since then.
package install
