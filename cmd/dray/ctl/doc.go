// Package ctl has the subcommands that ask a running dray, through its API for operators
// (mirror/admin/api). It finds the address in the configuration, and shortens digests as
// upstream/oci does.
package ctl
