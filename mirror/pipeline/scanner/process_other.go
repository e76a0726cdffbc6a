//go:build !linux

package scanner

import "syscall"

// apart is a program in a group of its own. Only Linux ends it with a dray that was killed.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
