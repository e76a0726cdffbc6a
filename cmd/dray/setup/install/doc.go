// Package install puts files into place and takes them back. It records the content that it wrote
// and the former content. So it can write other content later, and undo everything, even if
// somebody has edited a file in between.
package install
