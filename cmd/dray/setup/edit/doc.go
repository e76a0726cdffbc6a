// Package edit changes configuration files that people also edit by hand. It keeps comments. In
// TOML and JSON, it also keeps all other text, and checks each change: it parses the new text, and
// returns an error if more has changed than intended.
package edit
