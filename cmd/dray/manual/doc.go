// Package manual makes manual pages from subcommands, so that they say what the help says.
package manual
