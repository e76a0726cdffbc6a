// Package edit changes configuration files that people also edit by hand. It keeps comments, and in
// TOML and JSON all other text. In these, it parses the result of each change, and returns an error
// if more has changed than intended.
package edit
