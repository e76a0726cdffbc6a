// Package usage says how a subcommand refuses arguments that it cannot understand.
package usage
