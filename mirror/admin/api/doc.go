// Package api has the types of the operators' API: for admin and inventory, which answer, and for
// the subcommands (cmd/dray/ctl), which ask.
package api
