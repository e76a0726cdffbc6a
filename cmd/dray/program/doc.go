// Package program has the code that both programs named dray share: the root of the subcommands,
// the exit codes, the version, and the printing of errors. One program is the mirror with all
// subcommands (cmd/dray). The other program has only the subcommands that query a running mirror
// (cmd/dray/remote).
package program
