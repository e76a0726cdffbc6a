// Package pattern compares names with patterns: whole names in which "*" stands for any characters,
// slashes included.
package pattern
