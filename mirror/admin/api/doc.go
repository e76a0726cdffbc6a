// Package api has the types of the operators' API. The packages admin and inventory answer with
// them. The subcommands in cmd/dray/ctl send requests and read the answers.
package api
