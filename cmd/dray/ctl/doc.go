// Package ctl has the subcommands that ask a running dray, through its API for operators.
package ctl
