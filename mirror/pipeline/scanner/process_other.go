//go:build !linux

package scanner

import "syscall"

// processGroup makes a program run in its own process group. Only Linux can end it when dray is
// killed.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
