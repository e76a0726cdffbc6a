// Package api has the types of the operators' API. The endpoints of the package admin answer
// with them. Packages such as inventory and explain make the answers. The subcommands in
// cmd/dray/ctl send requests and read the answers.
package api
