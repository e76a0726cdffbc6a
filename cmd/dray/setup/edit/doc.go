// Package edit changes configuration files that people also edit by hand. It inserts text and
// leaves everything else as it is, comments included. After each change, it reads the whole text
// again, and returns an error if more has changed than intended.
package edit
