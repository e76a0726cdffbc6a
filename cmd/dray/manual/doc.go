// Package manual makes the manual pages of subcommands from the text of their help.
package manual
