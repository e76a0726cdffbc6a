// Package program is what the programs named dray have in common: the root of their subcommands,
// their exit codes, their version, and how they print an error. One is the mirror with all
// subcommands (cmd/dray); the other has only those that ask a running mirror (cmd/dray/remote).
package program
