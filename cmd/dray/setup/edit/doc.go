// Package edit changes configuration files that people also edit by hand. It keeps comments. In
// TOML and JSON, it also keeps all other text: it parses the result of each change, and returns an
// error if more has changed than intended.
package edit
