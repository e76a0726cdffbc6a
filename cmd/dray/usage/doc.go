// Package usage has the argument checks of the subcommands and the error for wrong usage.
package usage
