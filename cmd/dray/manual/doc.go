// Package manual makes manual pages from subcommands, so that the pages have the text of the help.
package manual
