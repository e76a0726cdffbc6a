// Package pattern matches names against patterns. A pattern matches a whole name; "*" in it
// matches any characters, including slashes.
package pattern
