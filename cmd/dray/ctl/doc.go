// Package ctl has the subcommands that query and change a running dray through the API of its
// admin listener (mirror/admin/api).
package ctl
