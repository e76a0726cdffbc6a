// Package install puts files into place and takes them back. It keeps a record of what it wrote and
// of what was there before. So it can write again with other content, and undo everything, also
// where somebody has edited a file in between.
package install
